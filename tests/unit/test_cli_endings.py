"""How the command line reads numbers and paths, and how it ends."""

import errno
import os
from collections.abc import Iterator

import click
import pytest

from host_backend.cli.answer import Answer
from host_backend.cli.commands import _failed, cli
from host_backend.cli.named_path import NamedPath
from host_backend.cli.parameters import Whole


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("9000000", 9_000_000), ("-1", -1)])
def test_whole_numbers(text: str, number: int) -> None:
    assert Whole().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["1_100", "\uff11\uff11", " 1", "1\n", "+1", "1.0", "0x1", "", "9" * 19])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a whole number"):
        Whole().convert(text, None, None)


def path_parameters(command: click.Command) -> Iterator[click.Parameter]:
    yield from (each for each in command.params if isinstance(each.type, click.Path))
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from path_parameters(below)


def test_an_empty_path_is_refused_by_every_command() -> None:
    parameters = list(path_parameters(cli))
    assert {"config", "to_octez", "from_octez", "source", "file"} <= {each.name for each in parameters}
    for parameter in parameters:
        assert isinstance(parameter.type, NamedPath), parameter
        with pytest.raises(click.BadParameter, match="must not be empty"):
            parameter.type.convert("", parameter, None)


@pytest.mark.parametrize(("code", "where"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "sysctl fs.file-max")])
def test_too_many_open_files_are_no_bug(code: int, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _failed(OSError(code, os.strerror(code)), Answer()) == 1
    assert capsys.readouterr().err == f"Error: {os.strerror(code)}: raise the limit of open files ({where})\n"
