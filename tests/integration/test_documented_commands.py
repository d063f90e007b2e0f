"""Every command of the documents, run by a shell as it stands there, in the order in which it stands there.

The reader of a document has a folder in which `make run` was done; ports are those that were free, as there.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from host_backend.addresses import Address
from host_backend.config import load_config
from tests.contract.markdown import ROOT, blocks, documents
from tests.doubles.host_process import ask
from tests.doubles.known_keys import KEYS, SIGNATORY
from tests.doubles.processes import PATIENCE_S, Program
from tests.doubles.quickstart_process import Quickstart, running_quickstart

#: Files that the examples speak of.
FILES = {
    "key.pem": SIGNATORY["pem_keys"][0]["pkcs8_pem"],
    "encrypted.key": SIGNATORY["encrypted_secret_keys"][0]["encrypted"] + "\n",
    "password": SIGNATORY["encrypted_secret_keys"][0]["password"] + "\n",
    "client.key": KEYS["auth"].secret + "\n",
}
OUR_PROGRAMS = re.compile(r"\.venv/bin/enclave-(host|signer)")


def commands(document: Path) -> list[str]:
    """Return the lines of a document that call our programs, or one that runs."""
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
    return [line for line in lines if OUR_PROGRAMS.search(line) or line.startswith("curl ")]


WITH_COMMANDS = [document for document in documents() if commands(document)]


class Reader:
    """Someone who does what a document says, line by line, with two more terminals for what keeps running."""

    def __init__(self, folder: Path, quickstart: Quickstart) -> None:
        self._folder = folder
        self._quickstart = quickstart
        self._running: list[Program] = []
        config = load_config(folder / ".state" / "signatory.yaml")
        assert isinstance(config.server.utility_address, Address)
        self._ports = {"127.0.0.1:9583": str(config.server.utility_address)}

    def do(self, line: str) -> None:
        """Run a line; a program that serves runs until something needs it stopped."""
        for documented, actual in self._ports.items():
            line = line.replace(documented, actual)
        words = shlex.split(line)
        if words[0] == "curl":
            url = urlsplit(words[1])
            assert ask(url.port or 80, "GET", url.path).status == 200
        elif words[0].endswith("enclave-signer"):
            self.stop()
            self._start(words, "listening on")
        elif words[1:2] == ["serve"]:
            self._start(words, '"HTTP server is listening')
        else:
            if words[1:2] == ["watermark"]:
                # They say so: with the host stopped.
                self.stop()
            # What a command asks to have typed, if it asks: a key's hash, or the level above which all is signed.
            typed = [word for option, word in pairwise(words) if word.startswith("tz") or option == "--above-level"]
            run = subprocess.run(
                ["bash", "-c", line],
                cwd=self._folder,
                input="".join(f"{word}\n" for word in typed),
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert run.returncode == 0, f"{line}:\n{run.stdout}{run.stderr}"

    def _start(self, words: list[str], ready: str) -> None:
        # The shell ends as the program does, and gets its signals.
        program = Program(["bash", "-c", f"cd {shlex.quote(str(self._folder))} && exec {shlex.join(words)}"])
        self._running.append(program)
        program.wait_for(re.escape(ready))

    def stop(self) -> None:
        """Stop everything, the host first."""
        if self._quickstart.process.poll() is None:
            assert self._quickstart.stop() == 0
        while self._running:
            program = self._running.pop()
            assert program.stop() == 0, program.log
            assert program.process.stderr is not None
            program.process.stderr.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "signatory.example.yaml").symlink_to(ROOT / "signatory.example.yaml")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with running_quickstart(tmp_path / ".state") as quickstart:
        reader = Reader(tmp_path, quickstart)
        try:
            yield reader
        finally:
            reader.stop()


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_does_what_it_says(document: Path, reader: Reader) -> None:
    for line in commands(document):
        reader.do(line)


def test_the_documents_with_commands_are_known() -> None:
    names = {str(document.relative_to(ROOT)) for document in WITH_COMMANDS}
    assert {"README.md", "docs/operations.md", "docs/command-line.md"} <= names


def test_bash_takes_what_completion_prints(tmp_path: Path) -> None:
    (tmp_path / "enclave-host").symlink_to(Path(sys.executable).parent / "enclave-host")
    script = """
        eval "$(enclave-host completion bash)"
        COMP_WORDS=(enclave-host doc); COMP_CWORD=1; _enclave_host_completion enclave-host; echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert run.stdout == "doctor\n"
