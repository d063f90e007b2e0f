"""`enclave-host doctor`: what it takes and prints."""

import json
import sys
from collections import Counter

import click

from host_backend.cli.colour import in_colour
from host_backend.cli.findings import FAILED, OK, WARNING, Check, counted
from host_backend.cli.options import Options, takes_json, takes_options

_COLOURS = {OK: "green", WARNING: "yellow", FAILED: "red"}


@click.command()
@takes_json
@takes_options
def doctor(options: Options, *, as_json: bool) -> None:
    """Look at everything that `serve` needs: one line per check, and what to do about it.

    Files, watermark store, enclave, every key, clock, disk, addresses and TLS. Signs nothing, changes nothing, and may run
    beside a running host. Exits with 1 when a check failed; warnings are no failures.
    """
    import asyncio

    from host_backend.cli.checks import examine

    options.start_logging(one_shot=True)
    counts: Counter[str] = Counter()

    async def run() -> None:
        async for check in examine(options.config_file, options.base_dir):
            counts[check.state] += 1
            click.echo(_line(check, as_json=as_json))

    asyncio.run(run())
    if not as_json:
        click.echo(
            f"{counted(counts.total(), 'check')}: {counts[FAILED]} failed, {counted(counts[WARNING], 'warning')}"
        )
    if counts[FAILED]:
        sys.exit(1)


def _line(check: Check, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"check": check.name, "state": check.state, "text": check.text})
    if not in_colour():
        return f"{check.state}: {check.name}: {check.text}"
    return f"{click.style(f'{check.state:<7}', fg=_COLOURS[check.state])}  {check.name}: {check.text}"
