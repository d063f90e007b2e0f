"""`enclave-host doctor`: what it takes and prints."""

import json
import sys

import click

from host_backend.cli.options import Options, takes_json, takes_options


@click.command()
@takes_json
@takes_options
def doctor(options: Options, *, as_json: bool) -> None:
    """Look at everything that `serve` needs: one line per check, and what to do about it.

    Files, watermark store, enclave, every key, clock, disk and addresses. Signs nothing, changes nothing, and may run
    beside a running host. Exits with 1 when a check failed; warnings are no failures.
    """
    import asyncio

    from host_backend.cli.checks import FAILED, Check, examine

    options.start_logging()

    async def run() -> bool:
        sound = True
        async for check in examine(options.config_file, options.base_dir):
            sound = sound and check.state != FAILED
            click.echo(_line(check, as_json=as_json))
        return sound

    def _line(check: Check, *, as_json: bool) -> str:
        if as_json:
            return json.dumps({"check": check.name, "state": check.state, "text": check.text})
        return f"{check.state}: {check.name}: {check.text}"

    if not asyncio.run(run()):
        sys.exit(1)
