"""What movers have in hand: configurations, key files and wallets in the forms that public documents show."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from enclave_signer.tezos import public_key_hash
from host_backend.cli.secrets import read_secret_keys
from host_backend.config import load_config
from host_backend.errors import ConfigError, MalformedRequest
from host_backend.secret_keys import open_secret_key
from tests.doubles.known_keys import VECTORS

MOVERS: dict[str, Any] = json.loads((VECTORS / "movers.json").read_text())
CONFIGURATIONS: list[dict[str, Any]] = MOVERS["configurations"]
SECRETS: list[dict[str, Any]] = [*MOVERS["key_files"], *MOVERS["wallets"]]


def by_name(item: Mapping[str, Any]) -> str:
    return str(item["name"])


def test_there_are_twelve_of_each() -> None:
    assert all(
        len({by_name(item) for item in MOVERS[kind]}) >= 12 for kind in ("configurations", "key_files", "wallets")
    )


@pytest.mark.parametrize("item", CONFIGURATIONS, ids=by_name)
def test_configurations(item: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/var/baker")
    file = tmp_path / "signatory.yaml"
    file.write_text(item["text"])
    lines = []
    try:
        load_config(file)
    except ConfigError as error:
        lines = str(error).splitlines()
    assert len(lines) == len(item["problems"]), lines
    for line, problem in zip(lines, item["problems"], strict=True):
        assert line.partition(": ")[2].startswith(problem)


def no_password() -> bytes:
    raise AssertionError("nothing here is encrypted")


@pytest.mark.parametrize("item", SECRETS, ids=by_name)
def test_key_files_and_wallets(item: Mapping[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(base64.b64decode(item["base64"]))
    file.chmod(0o600)
    if item["problem"] is None:
        keys = read_secret_keys([], file, no_password)
        assert [public_key_hash(open_secret_key(key).public_key) for key in keys] == item["keys"]
    else:
        with pytest.raises(MalformedRequest) as refusal:
            read_secret_keys([], file, no_password)
        assert item["problem"] in str(refusal.value)
