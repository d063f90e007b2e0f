"""A client in JavaScript that was written from `docs/protocol.md` and `docs/local-use.md` alone signs."""

import os
import subprocess
from pathlib import Path

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import Signature, SigningVersion
from tests.doubles.known_keys import FOUR
from tests.doubles.local_world import holding, rule, running_local
from tests.doubles.processes import PATIENCE_S

CLIENT = Path(__file__).parent / "node_client.js"


def run(path: Path, pkh: str) -> "subprocess.CompletedProcess[str]":
    command = ["node", str(CLIENT), str(path), pkh, b"\x05anything".hex()]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_it_signs_with_keys_of_all_curves(tmp_path: Path) -> None:
    path = tmp_path / "run" / "enclave.sock"
    allowed = (
        rule([f"uid:{os.geteuid()}"], ["Initialize", "ImportUnencrypted"], ["*"]),
        rule([f"uid:{os.geteuid()}"], ["UseKey", "PublicKey", "Sign"], [key.pkh for key in FOUR[1:]]),
    )
    with running_local(path, "".join(allowed)), holding(path):
        for key in FOUR[1:]:
            name, public_key, signature = run(path, key.pkh).stdout.split()
            assert (name, public_key) == (key.key_type.value, key.public_key_bytes.hex())
            verifier = curve(key.key_type).parse_public_key(bytes.fromhex(public_key))
            signed = Signature(key.key_type, bytes.fromhex(signature))
            verifier.verify(signed, b"\x05anything", SigningVersion.LATEST)
        refused = run(path, FOUR[0].pkh)
        assert refused.returncode == 1
        assert refused.stderr.startswith("not allowed: no rule lets this client make the call UseKey")
