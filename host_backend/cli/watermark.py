"""`enclave-host watermark` and its commands."""

from pathlib import Path

import click

from host_backend.cli.options import Options, takes_options

_RIGHTS = ["block", "preattestation", "attestation"]


@click.group()
@takes_options
def watermark(options: Options) -> None:
    """Look after the protection against double signing."""
    del options


@watermark.command("init")
@takes_options
def init_watermark(options: Options) -> None:
    """Make a new store for keys that have never signed; marks that Signatory left are taken over."""
    from host_backend.stores import marks_admin

    config = options.load()
    marks_admin(config).create()
    click.echo(f"Made the watermark store in {config.base_dir}")


@watermark.command("export")
@click.option(
    "--to-octez", type=click.Path(path_type=Path), help="Folder of octez-signer whose high watermarks to raise, too."
)
@takes_options
def export_watermark(options: Options, to_octez: Path | None) -> None:
    """Write the marks into Signatory's files, while the host is stopped, and let Signatory start again.

    An orderly stop of `serve` does this by itself.
    """
    from host_backend.cli.from_octez import export_octez_marks
    from host_backend.stores import marks_admin

    config = options.load()
    if to_octez is not None:
        export_octez_marks(config, to_octez)
        return
    marks_admin(config).export()
    click.echo(f"Wrote every mark into Signatory's files in {config.base_dir}")


@watermark.command("show")
@click.option("--json", "as_json", is_flag=True, help="As JSON: one list of objects.")
@takes_options
def show_watermarks(options: Options, as_json: bool) -> None:  # noqa: FBT001 -- click passes flags by name
    """Show every mark, also while the host runs; changes nothing."""
    from host_backend.cli.marks import show_marks

    show_marks(options.load(), as_json=as_json)


@watermark.command("migrate")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), help="Folder, a `base_dir`, whose marks to take over."
)
@click.option(
    "--from-octez", type=click.Path(path_type=Path), help="Folder of octez-signer whose high watermarks to take over."
)
@click.option(
    "--stopped-in-order", is_flag=True, help="With --from-octez: octez-signer was stopped, and did not crash."
)
@click.option(
    "--above-level",
    type=int,
    help="Take over a store of version 0.1, or a folder of octez-signer, that did not end in order: nothing is signed at "
    "this level or below.",
)
@click.option("--chain", "chains", multiple=True, help="With --above-level, as for `rebuild`.")
@click.option("--yes", is_flag=True, help="Do not ask.")
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
    """Bring the marks to where the configuration keeps them now, while the host is stopped.

    After `watermark.driver` was changed; or from another folder, whose host, Signatory or octez-signer must never sign
    again; or from a store of version 0.1 that `serve` does not take over by itself.
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


@watermark.command("rebuild")
@click.option(
    "--above-level",
    type=int,
    required=True,
    help="At or above every level that may have been signed: nothing is signed at this level or below.",
)
@click.option("--chain", "chains", multiple=True, help="A chain id for which keys get marks; may be repeated.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_options
def rebuild_watermarks(options: Options, above_level: int, chains: tuple[str, ...], yes: bool) -> None:  # noqa: FBT001 -- as above
    """Make a lost or damaged store anew, while the host is stopped: the way back from every store that does not start.

    Of each right the highest mark counts that is found in the old store, in Signatory's files and in a store of version
    0.1; keys under `tezos` get marks, too. The old store is kept under another name. Asks for the level to be typed again.
    """
    from host_backend.cli.marks import rebuild_marks

    rebuild_marks(options.load(), above_level, chains, confirmed=yes)


@watermark.command("reset")
@click.argument("chain_id")
@click.argument("pkh")
@click.argument("right", type=click.Choice(_RIGHTS))
@click.argument("level", type=int)
@click.option("--round", "round_", type=int, default=0, show_default=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_options
def reset_watermark(options: Options, chain_id: str, pkh: str, right: str, level: int, round_: int, yes: bool) -> None:  # noqa: FBT001 -- as above
    """Move one mark anywhere, also down, while the host is stopped: what was signed above it can be signed twice.

    For a right that one wrong request raised too far. Asks for the key's hash to be typed again.
    """
    from host_backend.cli.marks import reset_one_mark

    reset_one_mark(options.load(), chain_id, pkh, right, level, round_, confirmed=yes)


@watermark.command("raise")
@click.argument("chain_id")
@click.argument("pkh")
@click.argument("right", type=click.Choice(_RIGHTS))
@click.argument("level", type=int)
@click.option("--round", "round_", type=int, default=0, show_default=True)
@takes_options
def raise_watermark(options: Options, chain_id: str, pkh: str, right: str, level: int, round_: int) -> None:
    """Move one mark up, while the host is stopped: nothing at that level and round or below is signed any more."""
    from host_backend.cli.marks import raise_one_mark

    raise_one_mark(options.load(), chain_id, pkh, right, level, round_)
