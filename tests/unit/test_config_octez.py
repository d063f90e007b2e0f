"""The section `server.octez`."""

from pathlib import Path

import pytest

from host_backend.addresses import Address, UnixAddress
from host_backend.config.octez import OctezConfig
from host_backend.config.review import review
from tests.doubles.known_keys import KEYS
from tests.unit.test_config import load, refused

KEY = KEYS["tz1alias"].public_key
USERS = 'jwt: {users: {alice: {password: "SecretSecret-1-!", secret: "!sEtcU5RwLQYsA5qQ1c6zpo3FljQxfAKP"}}}'
TLS = "tls: {certificate: a, key: b, client_ca: c}"


@pytest.mark.parametrize(
    ("octez", "expected"),
    [
        ("", None),
        ("{unix: /run/s}", OctezConfig(unix=UnixAddress(Path("/run/s")))),
        ("{unix: 'unix:/run/s', tcp: }", OctezConfig(unix=UnixAddress(Path("/run/s")))),
        ("{tcp: '127.0.0.1:7732', idle_s: 8}", OctezConfig(tcp=Address("127.0.0.1", 7732), idle_s=8)),
        ("{tcp: '[::1]:1', known_keys: true}", OctezConfig(tcp=Address("::1", 1), known_keys=True)),
    ],
)
def test_where_octez_comes_in(tmp_path: Path, octez: str, expected: OctezConfig | None) -> None:
    assert load(tmp_path, f"server: {{octez: {octez}}}").server.octez == expected


@pytest.mark.parametrize(
    ("octez", "more", "text"),
    [
        ("{}", "", ": must say where to listen"),
        ("{known_keys: true}", "", ": must say where to listen"),
        ("{unix: run/s}", "", ".unix: must be unix: and an absolute path"),
        ("{tcp: 'unix:/run/s'}", "", ".tcp: must be host:port"),
        ("{tcp: localhost}", "", ".tcp: must be host:port"),
        ("{unix: /s, idle_s: 0}", "", ".idle_s: must be a number from 1 to 3600"),
        ("{unix: /s, other: 0}", "", ".other: "),
        ("{unix: /s}", f", {USERS}", ": cannot be used with JWT"),
        ("{tcp: '127.0.0.1:1'}", f", {TLS}", ": tcp cannot be used with `tls.client_ca` alone"),
    ],
)
def test_what_is_wrong(tmp_path: Path, octez: str, more: str, text: str) -> None:
    assert refused(tmp_path, f"server: {{octez: {octez}{more}}}").startswith(f"1: server.octez{text}")


def test_certificates_beside_signed_requests_or_a_unix_socket(tmp_path: Path) -> None:
    for octez in ("{tcp: '127.0.0.1:1'}, authorized_keys: " + KEY, "{unix: /s}"):
        assert load(tmp_path, f"server: {{octez: {octez}, {TLS}}}").server.octez is not None


@pytest.mark.parametrize(
    ("octez", "dangers"),
    [
        ("{unix: /s}", []),
        ("{tcp: '127.0.0.1:1'}", []),
        ("{tcp: ':1'}", ["all that reach :1 have signed", "requests and answers cross the network to :1 in clear"]),
        (f"{{tcp: ':1'}}, authorized_keys: {KEY}", ["requests and answers cross the network to :1 in clear"]),
    ],
)
def test_what_is_dangerous(tmp_path: Path, octez: str, dangers: list[str]) -> None:
    found = review(load(tmp_path, f"server: {{address: '127.0.0.1:1', octez: {octez}}}"))
    told = [text.partition(": ")[2] for text in found.dangers if text.startswith("server.octez")]
    assert [text[: len(danger)] for text, danger in zip(told, dangers, strict=True)] == dangers
    assert "Octez' sockets" in found.settings
