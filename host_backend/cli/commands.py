"""`enclave-host`: its commands, help, and how a command ends. What a command takes is in its own file."""

import errno
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import click

from enclave_signer import __version__
from host_backend.cli import output
from host_backend.cli.answer import Answer
from host_backend.cli.attest import attest
from host_backend.cli.authenticate import authenticate
from host_backend.cli.backup import backup
from host_backend.cli.command_help import Group
from host_backend.cli.configuration import configuration
from host_backend.cli.doctor import doctor
from host_backend.cli.information import completion, list_operations, list_requests, version
from host_backend.cli.keys import generate, import_keys, keys, list_keys, reload, reseal
from host_backend.cli.options import Options, takes_options
from host_backend.cli.watermark import watermark
from host_backend.log_writer import open_closed_streams

#: The exit code of a bug. Source: sysexits.h, EX_SOFTWARE.
EXIT_BUG = 70
PROGRAM = "enclave-host"
#: Other names of commands. Source: Signatory.
_ALIASES = {"v": "version"}
_HEADINGS = {
    "Serve and check": ("config", "serve", "doctor", "reload"),
    "Keys": ("generate", "import", "list", "keys", "reseal"),
    "Marks, and moving": ("watermark", "backup"),
    "Attestation": ("attest",),
    "For clients and policies": ("authenticate", "list-requests", "list-ops"),
    "This program": ("help", "version", "completion"),
}
#: Where the limit of open files is set: that of a process, and that of the machine.
_TOO_MANY_FILES: dict[int | None, str] = {errno.EMFILE: "ulimit -n", errno.ENFILE: "sysctl fs.file-max"}


class _Commands(Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or by its other name."""
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))


@click.group(
    cls=_Commands,
    headings=_HEADINGS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM, message="%(prog)s %(version)s")
@takes_options
def cli(options: Options) -> None:
    """Keep Tezos keys sealed by an enclave, and sign with them over HTTP."""
    del options
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(example="enclave-host serve -c signatory.yaml")
@click.option("--no-list", is_flag=True, help="Do not log the keys that are ready.")
@click.option(
    "--accept-store",
    metavar="ID",
    help="Sign on the watermark store in Firestore that has this id, though this host has not signed on it yet.",
)
@takes_options
def serve(options: Options, *, no_list: bool, accept_store: str | None) -> None:
    """Sign for clients over HTTP until stopped."""
    from host_backend.imports import imported_to_stay

    with imported_to_stay():
        from host_backend.app import run_serve
        from host_backend.config.reading import read_config
        from host_backend.inspection import forbid_inspection
        from host_backend.stores import accept_watermark_store

        # It holds the secrets of tokens, and the keys of TLS.
        forbid_inspection()
        config = options.load_to_serve()
    read_again = partial(read_config, options.config_file, options.base_dir)
    if accept_store is not None:
        accept_watermark_store(config, accept_store)
    run_serve(config, read_again, list_keys=not no_list)


@cli.command("help", example="enclave-host help watermark raise")
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
def show_help(words: Sequence[str]) -> None:
    """Show the help of a command."""
    context = click.get_current_context().find_root()
    for word in words:
        group = context.command
        command = group.get_command(context, word) if isinstance(group, click.Group) else None
        if command is None:
            raise click.UsageError(f"No such command {' '.join(words)!r}.")
        context = click.Context(command, parent=context, info_name=command.name)
    click.echo(context.get_help())


for _command in (
    attest,
    authenticate,
    backup,
    completion,
    configuration,
    doctor,
    generate,
    import_keys,
    keys,
    list_keys,
    list_operations,
    list_requests,
    reload,
    reseal,
    version,
    watermark,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; every failure is one line and the exit code of its family."""
    open_closed_streams()
    output.prepare()
    answer = Answer()
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = cli.main(prog_name=PROGRAM, standalone_mode=False, obj=Options(answer=answer))
        answer.end()
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(_said("interrupted", 1, answer))
    except click.ClickException as error:
        from enclave_signer.tezos import masked

        vars(error).update(message=masked(error.message))
        error.show()
        _answer(answer, error.format_message(), error.exit_code)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 -- the command line's catch-all
        sys.exit(_failed(error, answer))
    if problem := output.failure():
        sys.exit(_unwritten(problem))
    sys.exit(code if isinstance(code, int) else 0)


def _failed(error: Exception, answer: Answer) -> int:
    import logging

    from host_backend.errors import HostError

    if isinstance(error, HostError):
        return _said(str(error), error.exit_code, answer)
    # What could not be written before cannot be written now either; other errors of the system are bugs.
    if isinstance(error, OSError) and (problem := output.failure()):
        return _unwritten(problem)
    if isinstance(error, OSError) and error.errno in _TOO_MANY_FILES:
        return _said(f"{error.strerror}: raise the limit of open files ({_TOO_MANY_FILES[error.errno]})", 1, answer)
    logging.getLogger(__name__).error("a bug, please report it", exc_info=error)
    return _said("internal error: see the log above", EXIT_BUG, answer)


def _unwritten(problem: OSError) -> int:
    return _said(f"standard output cannot be written: {problem.strerror}", 1, Answer())


def _said(text: str, code: int, answer: Answer) -> int:
    from enclave_signer.tezos import masked
    from host_backend.log import flush

    flush()
    text = masked(text)
    # If it cannot be written, the exit code still says that something failed.
    with suppress(OSError):
        click.echo(f"Error: {text}", err=True)
    _answer(answer, text, code)
    return code


def _answer(answer: Answer, text: str, code: int) -> None:
    """Print the reason for a failure as JSON where that was asked for, even if the command never ran."""
    if "--json" in sys.argv[1:] and not answer.as_json:
        answer.begin()
    with suppress(OSError):
        answer.fail(text, code)
    output.failure()
