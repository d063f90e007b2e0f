"""Blocks of commands of a document, run as they stand there, but for the environment, which is there already."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.doubles.processes import ROOT


def run_block(block: str, environment: Mapping[str, str], replaced: Mapping[str, str]) -> str:
    """Return what a block prints; all of its lines have to succeed.

    Args:
        block: The lines.
        environment: Of the shell.
        replaced: Texts that stand for others, such as folders.
    """
    for documented, actual in replaced.items():
        assert documented in block, documented
        block = block.replace(documented, actual)
    script = "".join(_without_make(line) + "\n" for line in block.splitlines())
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _without_make(line: str) -> str:
    """Return the recipe of a target without the environment, which a test must not change."""
    if not line.startswith("make "):
        return line
    dry = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *line.split()[1:], f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        # Not what a make above this one was given.
        env={
            name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES", "ARGUMENTS"}
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    recipe = [each for each in dry.splitlines() if not each.startswith("scripts/environment")]
    assert recipe
    assert all(re.match(r"\S+/python -m image\.", each) for each in recipe), recipe
    return "\n".join(recipe)
