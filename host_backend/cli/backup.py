"""`enclave-host backup` and its commands."""

from pathlib import Path

import click

from host_backend.cli.options import Options, takes_options

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
@takes_options
def backup(options: Options) -> None:
    """Back up the sealed keys and the marks, check a backup, restore it."""
    del options


@backup.command("create")
@_FILE
@takes_options
def create(options: Options, file: Path) -> None:
    """Write all sealed keys and all marks into one new file.

    The host may run meanwhile. Keys stay sealed: what seals them, such as the sealing key, is not in the file.
    """
    from host_backend.cli.backups import create_backup

    create_backup(options.load(), file)


@backup.command("verify")
@_FILE
@click.option("--enclave", "with_enclave", is_flag=True, help="Also have the enclave open every key.")
@takes_options
def verify(options: Options, file: Path, *, with_enclave: bool) -> None:
    """Check that a backup is whole; exit with 1 if it is not.

    With --enclave every key is opened, in a session of its own, and compared with its hash. That stores nothing, signs
    nothing, and may run beside a running host.
    """
    from host_backend.cli.backups import verify_backup

    options.start_logging()
    verify_backup(options.load() if with_enclave else None, file)


@backup.command("restore")
@_FILE
@click.option(
    "--above-level",
    type=int,
    required=True,
    help="At or above every level that may have been signed: nothing is signed at this level or below.",
)
@click.option("--chain", "chains", multiple=True, help="A chain id for which keys get marks; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_options
def restore(options: Options, file: Path, above_level: int, chains: tuple[str, ...], *, yes: bool) -> None:
    """Bring the keys of a backup back, while the host is stopped.

    The marks of a backup are too old by everything that was signed since. So a new watermark store is made, as by
    `watermark rebuild`: every mark is at --above-level, or where the backup or what is found has it, if that is
    higher. A key that is stored already stays as it is. Asks for the level to be typed again.
    """
    from host_backend.cli.backups import restore_backup

    restore_backup(options.load(), file, above_level, chains, confirmed=yes)
