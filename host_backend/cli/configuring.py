"""What `config init`, `keys allow` and `reload` do."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import click

from enclave_signer.protocol.key_types import KeyType
from enclave_signer.tezos import TezosError, check_public_key_hash
from host_backend.cli.marks import require_chain
from host_backend.cli.next_command import next_command
from host_backend.cli.presets import BAKING, PRESETS, policy_lines
from host_backend.config import Config, load_config
from host_backend.config.experimental import check_on
from host_backend.durable import locked_itself, real_path, write_durably
from host_backend.errors import (
    ConfigError,
    EnclaveUnavailable,
    MalformedRequest,
    StateConflict,
    StoreUnavailable,
    reason_of,
)
from host_backend.reload_note import ReloadNote, read_note
from host_backend.stores import process_on

#: Seconds for a reload: a configuration of ten thousand keys takes some ten.
RELOAD_WAIT_S = 60.0
_POLL_S = 0.02
#: Seconds to wait for another command that changes the configuration: it takes some hundred milliseconds.
LOCK_WAIT_S = 30.0
_SECTION = re.compile(r"^tezos:[ \t]*(?P<value>[^#\r\n]*?)[ \t]*(?:#.*)?$", re.MULTILINE)


def next_steps(pkhs: Sequence[str]) -> str:
    """Return what to do for keys that are not listed yet to sign."""
    pkh = pkhs[0]
    bakes = check_public_key_hash(pkh).facts.bakes
    which = "this key signs" if len(pkhs) == 1 else "these keys sign"
    return (
        f"Next: {which} nothing before the configuration lists what it may sign. "
        f"{'For a baker on mainnet' if bakes else 'To stake and to vote'}:\n"
        f"    {next_command(f'keys allow {pkh}' if bakes else f'keys allow {pkh} --for staking')}\n"
        "then, if the host runs:\n"
        f"    {next_command('reload')}"
    )


def write_first_config(file: Path) -> None:
    """Write a configuration with comments, into a file that is not there yet.

    Raises:
        HostError: It is there, or cannot be written.
    """
    with _writing(file):
        exists = file.exists()
    if exists:
        raise StateConflict(f"{file} exists: a configuration is never overwritten; name a new file with -c")
    _write(file, files("host_backend.cli").joinpath("first_config.yaml").read_bytes(), 0o640)
    click.echo(f"Wrote {file}")
    click.echo(f"Next: read it, start enclave-signer, then {next_command('generate --type tz4')}")


def allow_key(file: Path, base_dir: str | None, pkh: str, preset: str, chain: str) -> None:
    """Add the lines of a key under `tezos:`; every other line of the file stays as it is.

    Raises:
        HostError: Hash or chain is wrong, the key is listed already or of a type that is off, or the file is written so
            that lines cannot be added; nothing is changed.
    """
    try:
        key_type = check_public_key_hash(pkh)
    except TezosError as error:
        raise MalformedRequest(str(error)) from None
    facts = key_type.facts
    if preset in BAKING and not facts.bakes:
        others = ", ".join(name for name in PRESETS if name not in BAKING)
        raise MalformedRequest(f"{facts.address} keys never bake: say with --for what it is for, one of {others}")
    require_chain(chain)
    lines = policy_lines(pkh, preset, chain)
    try:
        with locked_itself(real_path(file), LOCK_WAIT_S):
            _add_lines(file, base_dir, pkh, key_type, lines)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {reason_of(error)}") from error
    click.echo(f"Added to {file}:")
    click.echo("\n".join(lines))
    click.echo(f"Next: {next_command('reload')}, if the host runs")


def _add_lines(file: Path, base_dir: str | None, pkh: str, key_type: KeyType, lines: Sequence[str]) -> None:
    text = _text_of(file)
    before = load_config(file, base_dir)
    if pkh in before.policies:
        raise ConfigError(f"{file} lists {pkh} already: change what it may sign there, then enclave-host reload")
    check_on(key_type, before.experimental)
    changed = _with_lines(text.rstrip("\n") + "\n", lines)
    if changed is None or not _is_right(file, base_dir, changed, before, pkh):
        raise ConfigError(
            f"lines cannot be added to {file} as it is written; add them under `tezos:` yourself:\n" + "\n".join(lines)
        )
    if _text_of(file) != text:
        raise StateConflict(f"{file} was changed meanwhile, by an editor perhaps: nothing was added, run this again")
    _write(file, changed.encode(), 0o640)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not in UTF-8: lines are added to no other; convert it first") from None


def _with_lines(text: str, lines: Sequence[str]) -> str | None:
    """Return a configuration with lines at the end of its section `tezos`; None where it is written otherwise."""
    added = "\n".join(lines) + "\n"
    found = _SECTION.search(text)
    if found is None:
        return f"{text.rstrip()}\n\ntezos:\n{added}" if text.strip() else f"tezos:\n{added}"
    if found["value"] in {"{}", "~", "null"}:
        return text[: found.start("value")].rstrip() + text[found.end("value") :].replace("\n", f"\n{added}", 1)
    if found["value"]:
        return None
    end = found.end()
    for line in re.finditer(r"^(?P<text>.*)\n?", text[end + 1 :], re.MULTILINE):
        if line["text"].strip() and not line["text"].startswith((" ", "#")):
            break
        if line["text"].startswith(" ") and line["text"].strip():
            end = found.end() + 1 + line.end("text")
    first = re.match(r"(?:[ \t]*(?:#.*)?\n)*(?P<indent> +)\S", text[found.end() + 1 :])
    indent = first["indent"] if first else "  "
    shifted = "\n".join(indent + line.removeprefix("  ") for line in lines)
    return f"{text[:end]}\n{shifted}\n{text[end:].removeprefix(chr(10))}"


def _is_right(file: Path, base_dir: str | None, text: str, before: Config, pkh: str) -> bool:
    """Return whether a text is that configuration with one more key."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / file.name
        trial.write_text(text, encoding="utf-8")
        try:
            after = load_config(trial, base_dir or str(before.base_dir))
        except ConfigError:
            return False
    others = {key: policy for key, policy in after.policies.items() if key != pkh}
    return pkh in after.policies and others == before.policies


def _write(file: Path, data: bytes, mode: int) -> None:
    with _writing(file):
        file = real_path(file)
    with _writing(file):
        write_durably(file, data, mode)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turn errors of the system into ours."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be written: {reason_of(error)}") from error


def reload_host(config: Config) -> None:
    """Have the running host read its configuration again, and wait until it has.

    Raises:
        ConfigError: It goes on with the old policies; the text says why.
        HostError: No host runs, or it is another user's, or it has ended meanwhile.
    """
    host = process_on(config)
    if host is None:
        raise EnclaveUnavailable(f"no host runs on {config.base_dir}: start it with enclave-host serve")
    asked = time.monotonic()
    try:
        os.kill(host, signal.SIGHUP)
    except OSError as error:
        raise EnclaveUnavailable(f"process {host} cannot be asked: {reason_of(error)}; run this as its user") from error
    note = _awaited(config.base_dir, host, asked)
    if note is None:
        raise EnclaveUnavailable(
            f"process {host} has not noted within {RELOAD_WAIT_S:g} s what came of it: the old policies hold until its log "
            "says `policies reloaded`"
        )
    if note.problem is not None:
        raise ConfigError(f"process {host} goes on with the old policies: {note.problem}")
    click.echo(f"Process {host} has reloaded its policies")


def _awaited(folder: Path, host: int, asked: float) -> ReloadNote | None:
    """Return the note of a reload that began after it was asked for; None when that takes too long."""
    while time.monotonic() < asked + RELOAD_WAIT_S:
        note = read_note(folder)
        if note is not None and note.pid == host and note.started >= asked:
            return note
        try:
            os.kill(host, 0)
        except ProcessLookupError:
            raise EnclaveUnavailable(f"process {host} has ended: see its log") from None
        time.sleep(_POLL_S)
    return None
