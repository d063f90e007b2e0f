"""Output that cannot be written: the locale lacks a character, the disk is full. No bug, and never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.processes import PATIENCE_S, ROOT

FULL = Path("/dev/full")


def run(
    *words: str, stdout: Path | None = None, encoding: str = "utf-8", unbuffered: str = ""
) -> subprocess.CompletedProcess[bytes]:
    # What a locale sets, without one that has to be installed.
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", *words]
    if stdout is None:
        return subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, timeout=PATIENCE_S, check=False)
    with stdout.open("wb") as output:
        return subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, cwd=ROOT, env=environment, timeout=PATIENCE_S, check=False
        )


@pytest.mark.parametrize("encoding", ["iso-8859-1", "iso-8859-7"])
def test_characters_that_a_locale_lacks_are_replaced(encoding: str) -> None:
    ended = run("host_backend", "import", "--help", encoding=encoding)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"?" in ended.stdout


@pytest.mark.parametrize(
    "words", [["version"], ["list-ops"], ["--help"], ["list-requests", "--json"], ["help", "import"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_said(words: list[str], unbuffered: str) -> None:
    ended = run("host_backend", *words, stdout=FULL, unbuffered=unbuffered)
    assert ended.returncode == 1
    assert ended.stderr == b"Error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_the_daemon_says_it_too(words: list[str]) -> None:
    ended = run("enclave_signer", *words, stdout=FULL)
    assert ended.returncode == 1
    assert ended.stderr == b"enclave-signer: standard output cannot be written: No space left on device\n"


def test_errors_that_cannot_be_written_keep_their_exit_code() -> None:
    command = [sys.executable, "-m", "host_backend", "list", "-c", "/nowhere.yaml"]
    with FULL.open("wb") as full:
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, cwd=ROOT, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 2
