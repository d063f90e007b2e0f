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

For operators: every command with every option, as `--help` prints it. Common options may stand before or after the name of
a command. [Exit codes](operations.md#exit-codes) are the same for all.

`enclave-signer` reads `$LISTEN_PORT`; `enclave-host` reads the variables that [stand in for fields of the
configuration](signatory-compatibility.md#configuration), and those that paths in it name.

## Examples

Those of [the README](../README.md#commands) make keys, start and stop; these are the others. Is everything well? It
signs nothing and changes nothing, and may run beside a running host:

```sh
.venv/bin/enclave-host doctor -c .state/signatory.yaml
```

Every command that shows something has `--json`, one value per line:

```sh
.venv/bin/enclave-host list --json -c .state/signatory.yaml
```

Hand over a key in PEM, and one that a password protects. A key that is stored already is not stored twice, and the
command says so; the password is asked for if no file has it:

```sh
.venv/bin/enclave-host import -c .state/signatory.yaml --vault enclave --from key.pem
.venv/bin/enclave-host import -c .state/signatory.yaml --vault enclave --from encrypted.key --password-file password
```

A key whose stored blob does not open any more is handed over again with `--replace`; the old entry is kept in
`confidential_space_keys.json.replaced`:

```sh
.venv/bin/enclave-host import -c .state/signatory.yaml --vault enclave --from key.pem --replace
```

What a policy can allow, and which protocols' operations are known:

```sh
.venv/bin/enclave-host list-requests
.venv/bin/enclave-host list-ops --json
.venv/bin/enclave-host version --json
.venv/bin/enclave-host help watermark raise
```

What a client adds to the query of a request when the signer asks who it is: a signature of the client's own key, made
where that key is. The words are the key that shall sign, and the message:

```sh
.venv/bin/enclave-host authenticate tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb 03a11f5f17 --from client.key
```

Let the shell complete commands and options; for good, put the line into `~/.bashrc`:

```sh
eval "$(.venv/bin/enclave-host completion bash)"
```

On a terminal, long work shows how far it is; into a file or a pipe goes nothing of that.
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
