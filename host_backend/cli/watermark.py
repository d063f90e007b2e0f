"""`enclave-host watermark` and its commands."""

import click

from host_backend.cli.options import Options, takes_options


@click.group()
@takes_options
def watermark(options: Options) -> None:
    """Look after the protection against double signing."""
    del options


@watermark.command("init")
@takes_options
def init_watermark(options: Options) -> None:
    """Make a new, empty store for keys that have never signed, or not for a long time."""
    import asyncio

    from host_backend.app import create_watermark_store

    asyncio.run(create_watermark_store(options.load()))


@watermark.command("export")
@takes_options
def export_watermark(options: Options) -> None:
    """Write the marks into Signatory's files, while the host is stopped, and let Signatory start again.

    An orderly stop of `serve` does this by itself.
    """
    from host_backend.app import export_watermarks

    export_watermarks(options.load())


@watermark.command("raise")
@click.argument("chain_id")
@click.argument("pkh")
@click.argument("right", type=click.Choice(["block", "preattestation", "attestation"]))
@click.argument("level", type=int)
@click.option("--round", "round_", type=int, default=0, show_default=True)
@takes_options
def raise_watermark(options: Options, chain_id: str, pkh: str, right: str, level: int, round_: int) -> None:
    """Move one mark up, while the host is stopped: nothing at that level and round or below is signed any more."""
    from host_backend.cli.marks import raise_one_mark

    raise_one_mark(options.load(), chain_id, pkh, right, level, round_)
