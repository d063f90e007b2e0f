"""The options that documents are checked against are those that the commands' own reference lists."""

import json
import re
import subprocess

import pytest

from tests.doubles.processes import ROOT

COMMANDS = json.loads((ROOT / "tests" / "vectors" / "command-options.json").read_text())["commands"]
#: Of a terminal: bold, underlined.
_STYLE = re.compile(r"\x1b\[[0-9;]*m|.\x08")


@pytest.mark.parametrize("command", COMMANDS)
def test_its_reference_lists_every_option(command: str) -> None:
    said = subprocess.run([*command.split(), "--help"], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    text = _STYLE.sub("", said.stdout)
    listed = {f"--{name}" for name in re.findall(r"--(?:\[no-\])?([a-z][a-z0-9-]*)", text)}
    assert set(COMMANDS[command]) <= listed
