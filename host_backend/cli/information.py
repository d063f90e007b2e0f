"""Commands that need neither a configuration nor an enclave: names, the version, completion."""

import json
from collections.abc import Iterable

import click

from enclave_signer import __version__
from host_backend.cli.options import takes_json


@click.command("list-requests")
@takes_json
def list_requests(*, as_json: bool) -> None:
    """Show the kinds of request that a policy can allow."""
    from host_backend.operations.messages import REQUEST_KINDS

    _show("request", REQUEST_KINDS, as_json=as_json)


@click.command("list-ops")
@takes_json
def list_operations(*, as_json: bool) -> None:
    """Show the operations that a policy can allow under `generic`."""
    from host_backend.operations.table import OPERATION_KINDS

    # A policy may also name one vote of a ballot; Signatory's list does not.
    _show("operation", (kind for kind in OPERATION_KINDS if ":" not in kind), as_json=as_json)


def _show(what: str, names: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(sorted(names)))
    else:
        click.echo(f"Possible {what} types:\n" + "\n".join(f"    - {name}" for name in sorted(names)))


@click.command()
@takes_json
def version(*, as_json: bool) -> None:
    """Show the version, and the Tezos protocols whose operations it knows."""
    from enclave_signer.tezos import PROTOCOLS

    if as_json:
        protocols = {protocol.name: protocol.hash for protocol in PROTOCOLS}
        click.echo(
            json.dumps({"version": __version__, "protocols": [*protocols.values()], "protocol_names": [*protocols]})
        )
    else:
        protocols_text = ", ".join(f"{protocol.name} {protocol.hash}" for protocol in PROTOCOLS)
        click.echo(f"Release Version: {__version__}\nProtocols: {protocols_text}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands and options.

    For bash, in ~/.bashrc: eval "$(enclave-host completion bash)"
    """
    from click.shell_completion import get_completion_class

    context = click.get_current_context().find_root()
    program = context.info_name or ""
    script = get_completion_class(shell)
    if script is not None:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        click.echo(script(context.command, {}, program, variable).source())
