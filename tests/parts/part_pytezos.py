"""PyTezos at a running host, with the key that the page gives it: what it sends, and each of its failures."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.known_keys import FOUR, KnownKey
from tests.doubles.processes import PATIENCE_S
from tests.parts.clients import Sent, Site, check_sent, running_site, snippet

TZ1, TZ2, TZ3, TZ4 = FOUR
REQUIREMENTS = Path(__file__).with_name("pip_clients") / "requirements.txt"
#: In place of the page's own verifier of tz4 signatures.
ALL_BY_PYTEZOS = ('if self.curve != b"BL":', "if True:")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has PyTezos: it wants other versions than ours."""
    folder = tmp_path_factory.mktemp("environment")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=PATIENCE_S)
    install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(REQUIREMENTS)]
    subprocess.run(install, check=True, timeout=10 * PATIENCE_S)
    return python


def send(site: Site, python: Path, pkh: str, *changes: tuple[str, str], host: str = "open") -> Sent:
    text = snippet("python")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return site.send([str(python)], python.parents[1] / "program.py", text, pkh, host)


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_it_sends_what_the_host_signed(site: Site, python: Path, key: KnownKey) -> None:
    check_sent(send(site, python, key.pkh), key)


def test_it_verifies_the_old_form_of_tz4_signatures_alone(site: Site, python: Path) -> None:
    sent = send(site, python, TZ4.pkh, ALL_BY_PYTEZOS)
    assert (sent.code, sent.operation) == (1, b"")
    assert "ValueError: Signature is invalid." in sent.said
    old = send(
        site, python, TZ4.pkh, ALL_BY_PYTEZOS, ("requests.post(self.url,", 'requests.post(self.url + "?version=1",')
    )
    assert old.code == 0, old.said


def test_it_knows_no_tz5_key(site: Site, python: Path) -> None:
    sent = send(site, python, site.tz5)
    assert (sent.code, sent.operation) == (1, b"")
    assert "ValueError: Invalid prefix for a key encoding." in sent.said


def test_it_signs_no_requests(site: Site, python: Path) -> None:
    sent = send(site, python, TZ1.pkh, host="signed")
    assert (sent.code, sent.operation) == (1, b"")
    assert "ValueError: 401 " in sent.said


def test_it_has_no_increase_of_paid_storage(python: Path) -> None:
    asked = (
        "from pytezos import pytezos; print(hasattr(pytezos, 'transaction'), hasattr(pytezos, 'increase_paid_storage'))"
    )
    done = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.split() == ["True", "False"]
