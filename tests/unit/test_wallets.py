"""Wallets of Octez and Signatory, and JSON that is none."""

import json
from pathlib import Path

import pytest

from host_backend.cli.secrets import read_secret_keys
from host_backend.errors import MalformedRequest
from host_backend.secret_keys import MAX_SECRET_BYTES
from host_backend.wallets import MAX_WALLET_BYTES, secrets_in
from tests.doubles.known_keys import FOUR

TZ1, TZ2 = FOUR[:2]
WALLET = json.dumps(
    [
        {"name": "baker", "value": f"unencrypted:{TZ1.secret}"},
        {"name": "ledger", "value": "ledger://a-b-c-d/ed25519/0h/0h"},
    ]
)
SHOWN = f"Hash: {TZ1.pkh}\nPublic Key: {TZ1.public_key}\nSecret Key: unencrypted:{TZ1.secret}\n"


@pytest.mark.parametrize("frame", ["{}", "\ufeff{}", "\n {}\n"])
def test_a_wallet_holds_its_values_in_order(frame: str) -> None:
    values = [b"unencrypted:" + TZ1.secret.encode(), b"ledger://a-b-c-d/ed25519/0h/0h"]
    assert secrets_in(frame.format(WALLET).encode()) == values


def test_one_entry_of_a_wallet() -> None:
    assert secrets_in(json.dumps({"name": "a", "value": TZ2.secret}).encode()) == [TZ2.secret.encode()]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_octez_shows(ends: str) -> None:
    shown = SHOWN.replace("\n", ends).encode()
    assert secrets_in(shown) == [f"unencrypted:{TZ1.secret}".encode()]
    assert len(secrets_in(shown * 2)) == 2


@pytest.mark.parametrize("data", [b"", b"edsk", b"-----BEGIN", b"\x30\x00", TZ1.secret.encode()])
def test_other_input_stays_as_it_is(data: bytes) -> None:
    assert secrets_in(data) == [data]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("[", "begins like JSON and is not valid JSON"),
        ("[" * 10000, "begins like JSON and is not valid JSON"),
        ('{"name": "a", "value": "b", "value": "c"}', "names something twice"),
        ("[]", "this is JSON, but not a list of keys"),
        ("{}", "this is JSON, but not a list of keys"),
        (f'[{{"name": "a", "value": "{TZ1.secret}"}}, 1]', "this is JSON, but not a list of keys"),
        (f'{{"secret": "{TZ1.secret}"}}', "this is JSON, but not a list of keys"),
        ('[{"name": "a", "value": {"key": "edpk"}}]', "this is JSON, but not a list of keys"),
        ('{"kty": "EC", "crv": "P-256", "d": "AA"}', "this is a JSON Web Key"),
    ],
)
def test_json_that_is_no_wallet(data: str, text: str) -> None:
    with pytest.raises(MalformedRequest, match=text) as refusal:
        secrets_in(data.encode())
    assert TZ1.secret not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_wallet_may_be_larger_than_a_key(tmp_path: Path) -> None:
    file = tmp_path / "secret.json"
    file.write_text(json.dumps([{"name": f"key {number}", "value": TZ1.secret} for number in range(500)]))
    file.chmod(0o600)
    assert file.stat().st_size > MAX_SECRET_BYTES
    assert len(read_secret_keys([], file, lambda: b"")) == 500
    file.write_bytes(b"[" + b" " * MAX_WALLET_BYTES)
    with pytest.raises(MalformedRequest, match=f"more than {MAX_SECRET_BYTES} bytes"):
        read_secret_keys([], file, lambda: b"")
