"""A folder as octez-signer leaves it behind."""

import json
from collections.abc import Mapping
from pathlib import Path

from tests.doubles.known_keys import KnownKey


def write_wallet(folder: Path, keys: Mapping[str, KnownKey], more: Mapping[str, str], authorized: KnownKey) -> None:
    """Write keys in clear, further values of secret keys by name, and one key that signs requests."""
    folder.mkdir(exist_ok=True)
    values: dict[str, dict[str, object]] = {
        "public_key_hashs": {name: key.pkh for name, key in keys.items()},
        "public_keys": {
            name: {"locator": f"unencrypted:{key.public_key}", "key": key.public_key} for name, key in keys.items()
        },
        "secret_keys": {**{name: f"unencrypted:{key.secret}" for name, key in keys.items()}, **more},
        "authorized_keys": {"the baker": authorized.public_key},
    }
    for name, entries in values.items():
        write(folder / name, [{"name": key, "value": value} for key, value in entries.items()])
    (folder / "wallet_lock").touch()


def write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))


def high_watermark(level: int, round_: int | None, digest: bytes, *, signed: bool = True) -> dict[str, object]:
    mark: dict[str, object] = {"level": level, "hash": digest.hex()}
    if round_ is not None:
        mark["round"] = round_
    return mark | ({"signature": "sigXYZ"} if signed else {})
