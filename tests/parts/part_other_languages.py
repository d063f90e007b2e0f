"""Clients in JavaScript and Go that were written from `docs/protocol.md` and `docs/local-use.md` alone sign."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.key_types import KeyType
from enclave_signer.protocol.messages import Signature, SigningVersion
from tests.doubles.known_keys import FOUR
from tests.doubles.local_world import holding, rule, running_local
from tests.doubles.processes import PATIENCE_S

HERE = Path(__file__).parent
MESSAGE = b"\x05anything"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def javascript(_: Path) -> list[str]:
    return ["node", str(HERE / "client.js")]


def golang(folder: Path) -> list[str]:
    subprocess.run(["go", "build", "-o", folder / "client", HERE / "client.go"], check=True)
    return [str(folder / "client")]


@pytest.fixture(scope="module", params=[javascript, golang])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    command = request.param(tmp_path_factory.mktemp("client"))

    def run(path: Path, *address: str) -> "subprocess.CompletedProcess[str]":
        words = [*command, str(path), MESSAGE.hex(), *address]
        return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    return run


def verified(done: "subprocess.CompletedProcess[str]") -> tuple[str, str]:
    """Return the curve and the public key that a client has printed, once its signature is verified."""
    assert done.returncode == 0, done.stderr
    name, public_key, signature = done.stdout.split()
    (key_type,) = (each for each in KeyType if each.value == name)
    verifier = curve(key_type).parse_public_key(bytes.fromhex(public_key))
    verifier.verify(Signature(key_type, bytes.fromhex(signature)), MESSAGE, SigningVersion.LATEST)
    return name, public_key


def test_it_signs_with_keys_of_all_curves(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run" / "enclave.sock"
    allowed = (
        rule([f"uid:{os.geteuid()}"], ["Initialize", "ImportUnencrypted"], ["*"]),
        rule([f"uid:{os.geteuid()}"], ["UseKey", "PublicKey", "Sign"], [key.pkh for key in FOUR[1:]]),
    )
    with running_local(path, "".join(allowed)), holding(path):
        for key in FOUR[1:]:
            assert verified(run(path, key.pkh)) == (key.key_type.value, key.public_key_bytes.hex())
        refused = run(path, FOUR[0].pkh)
        assert refused.returncode == 1
        assert refused.stderr.startswith("not allowed: no rule lets this client make the call UseKey")


def test_it_makes_a_key_and_signs(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run" / "enclave.sock"
    with running_local(path, rule([f"uid:{os.geteuid()}"], ["*"], ["*"])):
        assert verified(run(path))[0] == "Ed25519"
