"""The commands that texts advise, as they can be pasted: with the configuration that was named here."""

import shlex
import shutil
import sys
from pathlib import Path

import click

from host_backend.cli.options import Options

_NAME = "enclave-host"


def next_command(words: str) -> str:
    """Return a command to run next, as this one was run.

    Args:
        words: The command without the name of the program.

    Returns:
        The same with `-c` and `--base-dir` where this command had them, and with the path of the program if a shell
        does not find it by its name.
    """
    context = click.get_current_context(silent=True)
    options = (context.find_object(Options) if context is not None else None) or Options()
    program = sys.argv[0] if Path(sys.argv[0]).name == _NAME and shutil.which(_NAME) is None else _NAME
    given = (("-c", options.config), ("--base-dir", options.base_dir))
    named = [shlex.join((flag, str(value))) for flag, value in given if value is not None]
    return " ".join((shlex.quote(program), words, *named))
