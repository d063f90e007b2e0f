"""What both programs say to `--help`, and the page that shows it: `python -m tests.contract.command_line` writes it."""

import os
import sys
from collections.abc import Iterator

import click

from host_backend.cli.commands import cli
from tests.contract.markdown import DOCS, blocks
from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import run

#: Of a terminal as it is opened.
COLUMNS = 80
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
where that key is. The arguments are the key that will sign, and the message:

```sh
.venv/bin/enclave-host authenticate tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb 03a11f5f17 --from client.key
```

Let the shell complete commands, options, and the vaults and keys of the configuration; to keep it, put the line into
`~/.bashrc`:

```sh
eval "$(.venv/bin/enclave-host completion bash)"
```

On a terminal, long work shows a progress bar; nothing of that goes into a file or a pipe.

## JSON

With `--json` a command prints one JSON object on standard output when it ends; log lines, warnings and questions stay on
standard error. The same thing has the same name in every command:

| member | is |
|---|---|
| `public_key_hash`, `public_key` | a key, as in `tz1…` and `edpk…` |
| `vault`, `name` | a vault's name; the name that a wallet, a protocol or a check gives |
| `chain_id`, `right`, `level`, `round`, `digest` | a mark; `right` is `block`, `preattestation` or `attestation` |
| `state`, `outcome`, `reason`, `text` | of a check or a mark; what was done; why not; for people |
| `error`, `exit` | only when the command failed: the text, and the exit code |

| command | lists and other members |
|---|---|
| `list`, `generate` | `keys`: with `active` and what the policy allows, or with `out_of_service`, the reason |
| `import` | `keys` with `outcome`; with `--from-octez` also `refused`, `names`, `authorized_keys` |
| `reseal` | `keys` with `from`, `to`, `outcome`, `reason`; `vaults` with `kept`, where the old blobs are |
| `watermark show` | `marks` with `state`, `ok` or `refused` |
| `config check` | `settings`, `keys`, `notes`, `ignored`, `dangers` |
| `doctor` | `checks` with `check`, `state`, `text`; `failed`, `warnings`: how many |
| `attest` | `outcome`, `bound`, `checks` with `claim`, `state`, `text`; `claims` |
| `authenticate` | `authentication`, `public_key`, `public_key_hash` of the client, or `valid`; `signed_bytes` |
| `list-requests`, `list-ops` | `requests`; `operations` |
| `version` | `version`; `protocols` with `name`, `hash` |

A command that fails half-way prints what was done before it, with `error` and `exit`:

```sh
.venv/bin/enclave-host list --json -c .state/signatory.yaml
```
"""


def help_of(command: str) -> str:
    """Return what a command, for example `enclave-host watermark init`, says to `--help`."""
    program, *names = command.split()
    module = {"enclave-signer": "enclave_signer", "enclave-host": "host_backend"}[program]
    words = [sys.executable, "-m", module, *names, "--help"]
    done = run(words, env={**os.environ, "COLUMNS": str(COLUMNS)}, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    first, last = "<!-- generated by tests.contract.command_line -->\n", "<!-- end of generated -->\n"
    PAGE.write_text("\n".join([_HEAD, first, *sections, last]))


if __name__ == "__main__":
    write_page()
