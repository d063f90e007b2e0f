"""`enclave-host doctor`: what it takes and prints."""

from collections import Counter

import click

from host_backend.cli.answer import Answer
from host_backend.cli.colour import in_colour
from host_backend.cli.command_help import Command
from host_backend.cli.counting import counted
from host_backend.cli.findings import FAILED, OK, WARNING, Check
from host_backend.cli.options import Options, takes_json, takes_options

_COLOURS = {OK: "green", WARNING: "yellow", FAILED: "red"}


@click.command(cls=Command, example="enclave-host doctor -c signatory.yaml")
@takes_json
@takes_options
def doctor(options: Options, *, answer: Answer) -> None:
    """Check everything that `serve` needs, and say how to fix it.

    Files, watermark store, enclave, every key, clock, disk, addresses and TLS: one line per check. Signs nothing, changes
    nothing, and can run beside a running host. Exits with 1 if a check failed, not for warnings.
    """
    import asyncio

    from host_backend.cli.checks import examine

    options.start_logging(one_shot=True)
    counts: Counter[str] = Counter()

    async def run() -> None:
        async for check in examine(options.config_file, options.base_dir):
            counts[check.state] += 1
            answer.add("checks", {"check": check.name, "state": check.state, "text": check.text})
            answer.say(_line(check))

    asyncio.run(run())
    answer.put(failed=counts[FAILED], warnings=counts[WARNING])
    answer.say(f"{counted(counts.total(), 'check')}: {counts[FAILED]} failed, {counted(counts[WARNING], 'warning')}")
    if counts[FAILED]:
        click.get_current_context().exit(1)


def _line(check: Check) -> str:
    if not in_colour():
        return f"{check.state}: {check.name}: {check.text}"
    return f"{click.style(f'{check.state:<7}', fg=_COLOURS[check.state])}  {check.name}: {check.text}"
