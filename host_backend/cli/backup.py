"""`enclave-host backup` and its commands."""

from pathlib import Path

import click

from host_backend.cli.command_help import Group
from host_backend.cli.mark_options import takes_rebuilding
from host_backend.cli.named_path import NamedPath
from host_backend.cli.options import Options, takes_options

_FILE = click.argument("file", type=NamedPath())


@click.group(cls=Group)
@takes_options
def backup(options: Options) -> None:
    """Back up keys and marks, check a backup, restore it."""
    del options


@backup.command("create", example="enclave-host backup create keys.backup")
@_FILE
@takes_options
def create(options: Options, file: Path) -> None:
    """Write all sealed keys and all marks into one new file.

    The host can keep running. Keys stay sealed: the file does not contain the sealing key.
    """
    from host_backend.cli.backups import create_backup

    create_backup(options.load(), file)


@backup.command("verify", example="enclave-host backup verify --enclave keys.backup")
@_FILE
@click.option("--enclave", "with_enclave", is_flag=True, help="Also let the enclave open every key.")
@takes_options
def verify(options: Options, file: Path, *, with_enclave: bool) -> None:
    """Check that a backup is complete; exit with 1 if it is not.

    With --enclave the enclave opens every key, in a session of its own, and compares it with its hash. That stores nothing,
    signs nothing, and can run beside a running host.
    """
    from host_backend.cli.backups import verify_backup

    options.start_logging()
    verify_backup(options.load() if with_enclave else None, file)


@backup.command("restore", example="enclave-host backup restore keys.backup --above-level 9000000")
@_FILE
@takes_rebuilding
@takes_options
def restore(options: Options, file: Path, above_level: int, chains: tuple[str, ...], *, yes: bool) -> None:
    """Restore the keys of a backup, while the host is stopped.

    The marks in a backup do not know of anything signed since. So the command makes a new watermark store, as `watermark
    rebuild` does: every mark is at --above-level, or higher where the backup or the old store has a higher one. Keys that
    are stored already stay as they are. You must type the level again to confirm.
    """
    from host_backend.cli.backups import restore_backup

    restore_backup(options.load(), file, above_level, chains, confirmed=yes)
