"""What the doctor says of a clock, a disk and libraries that are not as they should be; and the syntax of `--opt`."""

import time
from pathlib import Path

import pytest

from enclave_signer.curves import CurveError
from host_backend.cli import checks
from host_backend.cli.findings import Check
from host_backend.cli.option_map import parse_option_map
from host_backend.config import load_config
from host_backend.config.review import review
from host_backend.errors import ConfigError


def test_a_clock_that_cannot_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    offset_s = time.time() - time.monotonic()
    assert checks._clock(offset_s).state == "ok"
    moved = checks._clock(offset_s - 10)
    assert (moved.state, "moved by 10.0 s meanwhile" in moved.text) == ("warning", True)
    monkeypatch.setattr(checks, "PLAUSIBLE_YEARS", range(1970, 1971))
    assert checks._clock(offset_s).state == "failed"


def test_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "sync_times_s", lambda *_: [0.2, 0.3, 9.0])
    found = checks._disk(tmp_path)
    assert found.state == "warning"
    assert found.text.startswith(f"syncing {tmp_path} takes 300.0 ms, 9000.0 ms at most: every consensus signature")
    # One slow sync among fast ones is reported, and no reason to warn.
    monkeypatch.setattr(checks, "sync_times_s", lambda *_: [0.001, 0.001, 9.0])
    assert checks._disk(tmp_path).state == "ok"


def test_a_disk_that_is_too_fast_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first syncs of a process take longer anywhere.
    monkeypatch.setattr(checks, "sync_times_s", lambda *_: [3e-5] * 2 + [2e-6] * 5)
    found = checks._disk(tmp_path)
    assert found.state == "warning"
    assert found.text.startswith(f"syncing {tmp_path} takes 2.0 µs: no disk is that fast: ")
    monkeypatch.setattr(checks, "sync_times_s", lambda *_: [3e-5] * 3 + [2e-6] * 4)
    assert checks._disk(tmp_path).state == "ok"


def test_a_disk_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> list[float]:
        raise OSError(28, "anything")

    monkeypatch.setattr(checks, "sync_times_s", full)
    found = checks._disk(tmp_path)
    assert (found.state, found.text) == ("failed", f"{tmp_path} cannot be written to: No space left on device")


def test_libraries_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise CurveError("another library")

    monkeypatch.setattr(checks, "self_test", wrong)
    assert checks._libraries() == Check("curves", "failed", "another library: install the locked versions")


def test_an_address_whose_clients_are_known_is_for_the_firewall(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    for more, expected in (
        ("", "authenticate clients"),
        # A certificate of the server's own says nothing of its clients.
        ("tls: {certificate: /c, key: /k}", "authenticate clients"),
        ("tls: {certificate: /c, key: /k, client_ca: /a}", "limit them with a firewall"),
        ("authorized_keys: []", "limit them with a firewall"),
    ):
        file.write_text(f"server: {{address: '0.0.0.0:1', {more}}}\n")
        config = load_config(file)
        found = next(iter(checks._listeners(config)))
        assert (found.state, expected in found.text) == ("warning", True)
        assert any("server.address: " in danger for danger in review(config).dangers) == ("authenticate" in expected)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a:b", {"a": "b"}),
        (" a : b , c:d ", {"a": "b", "c": "d"}),
        ('"a b":"c, \\"d\\"", e\\ f:g\\:h', {"a b": 'c, "d"', "e f": "g:h"}),
        ('a:""', {"a": ""}),
        ("a:b,a:c", {"a": "c"}),
    ],
)
def test_option_maps(text: str, options: dict[str, str]) -> None:
    assert parse_option_map(text) == options


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "unexpected end of the string"),
        ("a", "unexpected end of the string"),
        ("a:", "unexpected end of the string"),
        ("a:b,", "unexpected end of the string"),
        ('a:"b', "unexpected end of the string"),
        ("a:b\\", "unexpected end of the string"),
        ("a b:c", "unexpected character: b"),
        (":b", "unexpected character: :"),
        ("a:b c", "unexpected character: c"),
        ("a:b:c", "unexpected character: :"),
        ("a:\udcff", "invalid rune"),
    ],
)
def test_option_maps_that_are_none(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_option_map(text)
    assert str(caught.value) == f"--opt: {error}"
