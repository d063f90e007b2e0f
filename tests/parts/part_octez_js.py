"""octez.js at a running host, with the signer that the page gives it: what it sends, and each of its failures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.known_keys import FOUR, KnownKey
from tests.parts.clients import TRANSFER, Sent, Site, check_sent, npm, paid_storage, running_site, snippet

TZ1 = FOUR[0]

#: Numbers with a sign, as Octez reads them.
AS_MINUS_36 = b"\x64"
AS_64 = b"\x80\x01"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm(tmp_path_factory.mktemp("npm"))


def send(site: Site, folder: Path, pkh: str, does: str = TRANSFER, host: str = "open") -> Sent:
    text = snippet("js", 1).replace(TRANSFER, does)
    return site.send(["node"], folder / "program.mjs", text, pkh, host)


@pytest.mark.parametrize("key", FOUR, ids=lambda key: key.name)
def test_it_sends_what_the_host_signed(site: Site, folder: Path, key: KnownKey) -> None:
    check_sent(send(site, folder, key.pkh), key)


def test_it_knows_no_tz5_key(site: Site, folder: Path) -> None:
    sent = send(site, folder, site.tz5)
    assert (sent.code, sent.operation) == (1, b"")
    assert "unsupported Base58 prefix" in sent.said
    assert site.tz5 in sent.said


def test_it_signs_no_requests(site: Site, folder: Path) -> None:
    sent = send(site, folder, TZ1.pkh, host="signed")
    assert (sent.code, sent.operation) == (1, b"")
    assert "Error: 401 " in sent.said


def test_amounts_of_paid_storage_from_64_on_are_wrong(site: Site, folder: Path) -> None:
    right = send(site, folder, TZ1.pkh, paid_storage(63))
    check_sent(right, TZ1)
    refused = send(site, folder, TZ1.pkh, paid_storage(64))
    assert (refused.code, refused.operation) == (1, b"")
    assert "Error: 400 " in refused.said
    for amount, written in ((100, AS_MINUS_36), (128, AS_64)):
        wrong = send(site, folder, TZ1.pkh, paid_storage(amount))
        check_sent(wrong, TZ1)
        assert written + b"\x01" in wrong.operation
