"""The page about encrypted images: its configuration is read, and its commands of ours run as they stand there."""

import json
import shlex
import sys
from pathlib import Path

from enclave_signer.keyprovider.config import parse_config
from tests.contract.markdown import DOCS, blocks, rows
from tests.doubles import starting
from tests.doubles.image_root import DEVELOPMENT
from tests.doubles.keyprovider import MODULE
from tests.doubles.processes import PATIENCE_S, running

PAGE = DOCS / "encrypted-images.md"
FOLDER = "/run/enclave-keyprovider"


def commands() -> list[list[str]]:
    """Return the commands of ours, each as it is run without being installed."""
    words = [shlex.split(line) for block in blocks(PAGE, "sh") for line in block.splitlines()]
    ours = [each for each in words if each[0] == ".venv/bin/enclave-keyprovider"]
    return [[sys.executable, "-m", MODULE, *each[1:]] for each in ours]


def test_its_commands_run(tmp_path: Path) -> None:
    (text,) = blocks(PAGE, "toml")
    (tmp_path / "image.toml").write_text(DEVELOPMENT.format(tmp_path / "sealing.key"))
    for name in ("image.toml", "k1.kek"):
        text = text.replace(f'"{name}"', f'"{tmp_path / name}"')
    config = tmp_path / "keyprovider.toml"
    config.write_text(text.replace(FOLDER, str(tmp_path / "run")))
    storing, serving = ([str(config) if word == "keyprovider.toml" else word for word in each] for each in commands())
    done = starting.run(storing, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    with running(serving) as program:
        program.wait_for("enclave-keyprovider is ready")
        assert program.stop() == 0


def test_its_files_fit_together() -> None:
    (text,) = blocks(PAGE, "toml")
    config = parse_config(text, "keyprovider.toml")
    by_grpc, by_command = (json.loads(block)["key-providers"] for block in blocks(PAGE, "json"))
    assert by_grpc == {config.provider: {"grpc": str(config.listeners[0]).replace("unix:", "unix://")}}
    assert by_command[config.provider]["cmd"]["args"][:2] == ["answer", "--config"]


def test_every_field_has_its_row() -> None:
    named = {name for cells in rows(PAGE) for name in cells[0].replace("`", "").split()}
    assert {"image", "listeners", "provider", "keks", "keks.id", "keks.file", "keks.commitment", "keks.wrap"} <= named
    for name in ("wip_provider_path", "encryption_key_path", "make = true"):
        assert f"`{name}`" in PAGE.read_text()
