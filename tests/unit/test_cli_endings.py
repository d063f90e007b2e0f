"""How the command line reads numbers, and how it ends."""

import errno
import os

import click
import pytest

from host_backend.cli.answer import Answer
from host_backend.cli.commands import _failed
from host_backend.cli.parameters import Whole


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("9000000", 9_000_000), ("-1", -1)])
def test_whole_numbers(text: str, number: int) -> None:
    assert Whole().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["1_100", "\uff11\uff11", " 1", "1\n", "+1", "1.0", "0x1", "", "9" * 19])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a whole number"):
        Whole().convert(text, None, None)


@pytest.mark.parametrize(("code", "where"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "sysctl fs.file-max")])
def test_too_many_open_files_are_no_bug(code: int, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _failed(OSError(code, os.strerror(code)), Answer()) == 1
    assert capsys.readouterr().err == f"Error: {os.strerror(code)}: raise the limit of open files ({where})\n"
