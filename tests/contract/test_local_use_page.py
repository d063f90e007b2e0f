"""`docs/local-use.md`: its rules are read, and its example signs."""

import os
import subprocess
import sys
from pathlib import Path

from enclave_signer.image import parse_image
from tests.contract.markdown import DOCS, blocks
from tests.doubles.known_keys import FOUR
from tests.doubles.local_world import holding, rule, running_local
from tests.doubles.processes import PATIENCE_S

TZ1 = FOUR[0]
PAGE = DOCS / "local-use.md"


def test_the_rules_are_read() -> None:
    (text,) = blocks(PAGE, "toml")
    image = parse_image(text, "image.toml")
    assert image.rights is not None
    host, application = image.rights
    assert host.keys is None
    assert application.calls == {"UseKey", "PublicKey", "Sign"}
    assert application.keys == frozenset({"tz1LggX2HUdvJ1tF4Fvv8fjsrzLeW4Jr9t2Q"})


def test_the_example_signs(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "python")
    script = tmp_path / "example.py"
    script.write_text(text)
    path = tmp_path / "run" / "enclave.sock"

    def run() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(script), str(path), TZ1.pkh]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert run().stderr.startswith("no enclave: no enclave can be reached")
    with running_local(path, rule([f"uid:{os.geteuid()}"], ["*"], ["*"])):
        assert run().stderr.startswith(f"try again later: unavailable: '{TZ1.pkh}' is not open")
        with holding(path, [TZ1]):
            public_key, signature = run().stdout.splitlines()
    assert public_key == f"public key {TZ1.public_key}"
    assert signature.startswith("signature edsig")
