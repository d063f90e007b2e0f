"""What the commands on backups do."""

import asyncio
import shlex
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from enclave_signer import __version__
from host_backend.backup import MAX_BACKUP_BYTES, Backup, BackupUnusable, decode_backup, encode_backup
from host_backend.bounded_file import read_bounded
from host_backend.cli.counting import counted
from host_backend.cli.marks import rebuild_marks
from host_backend.cli.next_command import next_command
from host_backend.cli.progress import progress
from host_backend.config import Config, VaultConfig
from host_backend.durable import create_folder, write_durably
from host_backend.errors import ConfigError, EnclaveRefused, StateConflict, StoreUnavailable, reason_of
from host_backend.keystore.base import StoredKey
from host_backend.stores import find_unopened_keys, marks_admin, store_keys, stored_keys


def create_backup(config: Config, file: Path) -> None:
    """Write a backup, durably, into a file that is not there yet.

    Raises:
        HostError: There is no backup; the text says why.
    """
    with _writing(file):
        exists = file.exists()
    if exists:
        raise StateConflict(f"{file} exists: a backup is never overwritten; name a new file")
    keys = {vault.name: asyncio.run(stored_keys(vault)) for vault in config.vaults.values()}
    # Marks are read after the keys: a key that is in the backup without its marks does no harm, as they are too old anyway.
    made = Backup(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), __version__, keys, marks_admin(config).read())
    data = encode_backup(made)
    with _writing(file):
        write_durably(file, data)
    click.echo(f"Backed up {_counts(made)} to {file}")
    verify = next_command(shlex.join(("backup", "verify", "--enclave", str(file))))
    click.echo(f"Next: {verify}; then keep it away from the sealing key.")


def verify_backup(config: Config | None, file: Path) -> None:
    """Check a backup; with a configuration, have the enclaves of its vaults open every key.

    Raises:
        HostError: It is not whole, or a key does not open; the text says which.
    """
    backup = _read(file)
    click.echo(f"Whole: {_counts(backup)}, made {backup.made} by version {backup.program}")
    for line in _levels(backup):
        click.echo(line)
    if config is None:
        return
    failed = 0
    for vault in _vaults(config, backup):
        keys = backup.keys[vault.name]
        with progress("opening keys", len(keys)) as advance:
            unopened = asyncio.run(find_unopened_keys(vault, keys, advance))
        failed += len(unopened)
        click.echo(f"Vault {vault.name}: the enclave opened {len(keys) - len(unopened)} of {counted(len(keys), 'key')}")
        for key, reason in unopened:
            click.echo(f"  {key.pkh} does not open: {reason}")
    if failed:
        raise EnclaveRefused(
            f"{counted(failed, 'key')} of the backup cannot be opened by this enclave: see the lines above"
        )


def restore_backup(config: Config, file: Path, above_level: int, chains: Sequence[str], *, confirmed: bool) -> None:
    """Make new marks above a level, then store the keys of a backup.

    Raises:
        HostError: Not done, or not whole; run it again.
    """
    backup = _read(file)
    vaults = _vaults(config, backup)
    try:
        create_folder(config.base_dir)
    except OSError as error:
        raise StoreUnavailable(f"base_dir {config.base_dir} cannot be made: {reason_of(error)}") from error
    # The marks first: keys without marks could sign what was signed since.
    rebuild_marks(
        *(config, above_level, chains),
        confirmed=confirmed,
        aside="before-restore",
        pkhs=backup.hashes,
        known=backup.highest,
    )
    for vault in vaults:
        click.echo(f"Vault {vault.name}: {_stored(vault, backup.keys[vault.name])}")
    click.echo(
        f"Next: {next_command('doctor')}. Start a host on it only where no other has these keys: not after a drill."
    )


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turn errors of the system into ours."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"backup {file} cannot be written: {reason_of(error)}") from error


def _stored(vault: VaultConfig, entries: Sequence[StoredKey]) -> str:
    """Store keys, the first entry of each hash, and return what became of them."""
    keys = {key.pkh: key for key in reversed(entries)}
    new = asyncio.run(store_keys(vault, [*keys.values()][::-1]))
    text = f"{counted(len(new), 'key')} restored"
    if kept := len(keys) - len(new):
        text += f"; {counted(kept, 'key')} stored already: unchanged"
    if again := len(entries) - len(keys):
        text += f"; {again} further entries of the same keys left out"
    return text


def _read(file: Path) -> Backup:
    try:
        data = read_bounded(file, MAX_BACKUP_BYTES)
    except OSError as error:
        raise ConfigError(f"backup {file} cannot be read: {reason_of(error)}") from error
    if data is None:
        raise BackupUnusable(f"{file} has more than {MAX_BACKUP_BYTES} bytes: it is not a backup")
    try:
        return decode_backup(data)
    except BackupUnusable as error:
        raise BackupUnusable(f"{file}: {error}") from None


def _vaults(config: Config, backup: Backup) -> list[VaultConfig]:
    """Return the vaults that have keys in a backup."""
    names = [name for name, keys in backup.keys.items() if keys]
    if missing := [name for name in names if name not in config.vaults]:
        known = ", ".join(config.vaults) or "none"
        raise ConfigError(f"the backup has keys of vault {missing[0]}; under `vaults` the configuration has: {known}")
    return [config.vaults[name] for name in names]


def _levels(backup: Backup) -> Iterator[str]:
    """Yield how far each chain was."""
    levels: defaultdict[str, int] = defaultdict(int)
    for key, mark in backup.highest.items():
        levels[key.chain_id] = max(levels[key.chain_id], mark.level)
    for chain_id, level in sorted(levels.items()):
        yield f"Chain {chain_id}: signed up to level {level} when it was made"


def _counts(backup: Backup) -> str:
    keys = sum(map(len, backup.keys.values()))
    return f"{counted(keys, 'key')} and {counted(len(backup.highest), 'mark')}"
