"""What both programs say to `--help`, and the page that shows it: `python -m tests.contract.command_line` writes it anew."""

import os
import subprocess
import sys
from collections.abc import Iterator

import click

from host_backend.cli.commands import cli
from tests.contract.markdown import DOCS, ROOT, blocks

PAGE = DOCS / "command-line.md"
_HEAD = """# Command line

Every command with every option, as `--help` prints it. The common options stand before or after the name of a command.
What the exit codes mean is in [Operations](operations.md#exit-codes).

`enclave-signer` is the daemon that holds the keys; `enclave-host` is everything else. `enclave-signer` reads
`$LISTEN_PORT`; the host reads what [stands in for fields of the configuration](signatory-compatibility.md#configuration),
and the variables that paths in it name.
"""


def help_of(command: str) -> str:
    """Return what a command, for example `enclave-host watermark init`, says to `--help`."""
    program, *names = command.split()
    module = {"enclave-signer": "enclave_signer", "enclave-host": "host_backend"}[program]
    run = subprocess.run(
        [sys.executable, "-m", module, *names, "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
    )
    return run.stdout


def commands() -> list[str]:
    """Return every command of both programs."""
    return ["enclave-signer", *_walk("enclave-host", cli)]


def _walk(name: str, command: click.Command) -> Iterator[str]:
    yield name
    if isinstance(command, click.Group):
        for word, inner in sorted(command.commands.items()):
            yield from _walk(f"{name} {word}", inner)


def documented() -> dict[str, str]:
    """Return the help texts on the page, by command: each block begins with a line that calls it."""
    texts: dict[str, str] = {}
    for block in blocks(PAGE, "text"):
        call, _, text = block.partition("\n")
        texts[call.removeprefix("$ ").removesuffix(" --help")] = text
    return texts


def write_page() -> None:
    sections = [f"## {name}\n\n```text\n$ {name} --help\n{help_of(name).rstrip()}\n```\n" for name in commands()]
    PAGE.write_text("\n".join([_HEAD, *sections]))


if __name__ == "__main__":
    write_page()
