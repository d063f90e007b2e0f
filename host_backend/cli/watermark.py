"""`enclave-host watermark` and its commands."""

from pathlib import Path

import click

from host_backend.cli.answer import Answer
from host_backend.cli.command_help import Group
from host_backend.cli.mark_options import takes_mark, takes_rebuilding, takes_yes
from host_backend.cli.named_path import NamedPath
from host_backend.cli.options import Options, takes_json, takes_options
from host_backend.cli.parameters import Whole


@click.group(cls=Group)
@takes_options
def watermark(options: Options) -> None:
    """Manage the marks, which protect against double signing."""
    del options


@watermark.command("init", example="enclave-host watermark init -c signatory.yaml")
@takes_options
def init_watermark(options: Options) -> None:
    """Make a new store, for keys that have never signed.

    Marks that Signatory left in `base_dir` are taken over.
    """
    from host_backend.stores import marks_admin

    config = options.load()
    marks_admin(config).create()
    click.echo(f"Made the watermark store in {config.base_dir}")


@watermark.command("export", example="enclave-host watermark export -c signatory.yaml")
@click.option("--to-octez", type=NamedPath(), help="Also raise the high watermarks in this folder of octez-signer.")
@takes_options
def export_watermark(options: Options, to_octez: Path | None) -> None:
    """Write the marks into Signatory's files, so that Signatory can start.

    The host must be stopped. An orderly stop of `serve` does the same.
    """
    from host_backend.cli.from_octez import export_octez_marks
    from host_backend.stores import marks_admin

    config = options.load()
    if to_octez is not None:
        export_octez_marks(config, to_octez)
        return
    marks_admin(config).export()
    click.echo(f"Wrote every mark into Signatory's files in {config.base_dir}")


@watermark.command("show", example="enclave-host watermark show --json")
@takes_json
@takes_options
def show_watermarks(options: Options, *, answer: Answer) -> None:
    """Show every mark; changes nothing, and can run beside a host."""
    from host_backend.cli.marks import show_marks

    show_marks(options.load(), answer)


@watermark.command("migrate", example="enclave-host watermark migrate --from /var/lib/signatory")
@click.option("--from", "source", type=NamedPath(), help="Another `base_dir` to take marks over from.")
@click.option("--from-octez", type=NamedPath(), help="Folder of octez-signer to take high watermarks over from.")
@click.option("--stopped-in-order", is_flag=True, help="With --from-octez: octez-signer was stopped and did not crash.")
@click.option(
    "--above-level",
    type=Whole(),
    help="For a store of version 0.1 or a folder of octez-signer that was not stopped in order: nothing at or below this "
    "level is signed again.",
)
@click.option("--chain", "chains", multiple=True, metavar="CHAIN_ID", help="With --above-level, as for `rebuild`.")
@takes_yes
@takes_options
def migrate_watermarks(
    options: Options,
    source: Path | None,
    from_octez: Path | None,
    above_level: int | None,
    chains: tuple[str, ...],
    *,
    stopped_in_order: bool,
    yes: bool,
) -> None:
    """Move the marks to the store that the configuration names.

    The host must be stopped. Use it after a change of `watermark.driver`; for another folder, whose host, Signatory or
    octez-signer must never sign again; or for a store of version 0.1 that `serve` does not take over.
    """
    from host_backend.cli.from_octez import migrate_octez_marks
    from host_backend.cli.marks import migrate_marks

    if from_octez is not None:
        if source is not None:
            raise click.UsageError("--from and --from-octez are both given: take over one after the other.")
        migrate_octez_marks(options.load(), from_octez, above_level, chains, stopped_in_order=stopped_in_order)
        return
    if stopped_in_order:
        raise click.UsageError("--stopped-in-order belongs to --from-octez.")
    migrate_marks(options.load(), source, above_level, chains, confirmed=yes)


@watermark.command("rebuild", example="enclave-host watermark rebuild --above-level 9000000")
@takes_rebuilding
@takes_options
def rebuild_watermarks(options: Options, above_level: int, chains: tuple[str, ...], yes: bool) -> None:  # noqa: FBT001 -- click passes flags by name
    """Replace a lost or damaged store.

    The host must be stopped. Each right gets its highest mark in the old store, in Signatory's files and in a store of
    version 0.1, and at least --above-level; so do all keys, under `tezos` or only stored. The old store is kept under
    another name. You must type the level again to confirm.
    """
    from host_backend.cli.marks import rebuild_marks

    rebuild_marks(options.load(), above_level, chains, confirmed=yes)


@watermark.command(
    "reset",
    example=(
        "enclave-host watermark reset NetXdQprcVkpaWU \\",
        "    tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb block 8000000",
    ),
)
@takes_mark
@takes_yes
@takes_options
def reset_watermark(options: Options, chain_id: str, pkh: str, right: str, level: int, round_: int, yes: bool) -> None:  # noqa: FBT001 -- as above
    """Move one mark, also down: what was signed above it can be signed twice.

    The host must be stopped. This is for a right that one wrong request raised too far. You must type the key's hash again
    to confirm.
    """
    from host_backend.cli.marks import reset_one_mark

    reset_one_mark(options.load(), chain_id, pkh, right, level, round_, confirmed=yes)


@watermark.command(
    "raise",
    example=(
        "enclave-host watermark raise NetXdQprcVkpaWU \\",
        "    tz1VSUr8wwNhLAzempoch5d6hLRiTh8Cjcjb attestation 9000000",
    ),
)
@takes_mark
@takes_options
def raise_watermark(options: Options, chain_id: str, pkh: str, right: str, level: int, round_: int) -> None:
    """Move one mark up: nothing at or below that level and round is signed again.

    The host must be stopped.
    """
    from host_backend.cli.marks import raise_one_mark

    raise_one_mark(options.load(), chain_id, pkh, right, level, round_)
