"""Commands that need neither a configuration nor an enclave: names, version, completion."""

from collections.abc import Iterable

import click

from enclave_signer import __version__
from host_backend.cli.answer import Answer
from host_backend.cli.command_help import Command
from host_backend.cli.options import takes_json


@click.command("list-requests", cls=Command, example="enclave-host list-requests")
@takes_json
def list_requests(*, answer: Answer) -> None:
    """Show the kinds of request that a policy can allow."""
    from host_backend.operations.messages import REQUEST_KINDS

    _show("request", REQUEST_KINDS, answer)


@click.command("list-ops", cls=Command, example="enclave-host list-ops --json")
@takes_json
def list_operations(*, answer: Answer) -> None:
    """Show the operations that a policy can allow under `generic`."""
    from host_backend.operations.table import OPERATION_KINDS

    # A policy may also name one vote of a ballot; Signatory's list does not.
    _show("operation", (kind for kind in OPERATION_KINDS if ":" not in kind), answer)


def _show(what: str, names: Iterable[str], answer: Answer) -> None:
    known = sorted(names)
    answer.add(f"{what}s", *known)
    answer.say(f"Possible {what} types:\n" + "\n".join(f"    - {name}" for name in known))


@click.command(cls=Command, example="enclave-host version")
@takes_json
def version(*, answer: Answer) -> None:
    """Show the version, and the Tezos protocols whose operations it knows."""
    from enclave_signer.tezos import PROTOCOLS

    answer.put(version=__version__)
    answer.add("protocols", *({"name": protocol.name, "hash": protocol.hash} for protocol in PROTOCOLS))
    protocols = ", ".join(f"{protocol.name} {protocol.hash}" for protocol in PROTOCOLS)
    answer.say(f"Release Version: {__version__}\nProtocols: {protocols}")


@click.command(cls=Command, example='eval "$(enclave-host completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which a shell completes commands, options, vaults and keys.

    To keep it, put the line below into ~/.bashrc; for zsh into ~/.zshrc.
    """
    from click.shell_completion import get_completion_class

    context = click.get_current_context().find_root()
    program = context.info_name or ""
    script = get_completion_class(shell)
    if script is not None:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        click.echo(script(context.command, {}, program, variable).source())
