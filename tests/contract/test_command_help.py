"""Help as a newcomer sees it: on a terminal of 80 columns, in groups, with an example that can be typed."""

import shlex
from collections.abc import Iterator

import click
import pytest

from host_backend.cli.commands import PROGRAM, cli
from tests.contract.command_line import COLUMNS, documented


def _contexts(command: click.Command, parent: click.Context | None = None) -> Iterator[click.Context]:
    name = PROGRAM if parent is None else command.name
    context = click.Context(command, parent=parent, info_name=name)
    yield context
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from _contexts(inner, context)


CONTEXTS = {context.command_path: context for context in _contexts(cli)}


@pytest.mark.parametrize("text", documented().values(), ids=documented())
def test_help_fits_a_terminal(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("path", CONTEXTS)
def test_each_command_has_an_example_that_it_understands(path: str) -> None:
    command = CONTEXTS[path].command
    examples = getattr(command, "examples", ())
    if (isinstance(command, click.Group) and not command.invoke_without_command) or command is cli:
        assert not examples
        return
    joined = "\n".join(examples).replace("\\\n", " ").splitlines()
    assert joined
    for example in joined:
        words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
        words = words[: words.index(">")] if ">" in words else words
        called = path.split()
        assert words[: len(called)] == called
        # Raises for an option or a value that the command does not take.
        command.make_context(called[-1], words[len(called) :], parent=CONTEXTS[path].parent)


def test_every_command_stands_under_one_heading() -> None:
    assert cli.headings is not None
    listed = [name for names in cli.headings.values() for name in names]
    assert sorted(listed) == sorted(cli.commands)
    assert "\nCommands:\n" not in documented()["enclave-host"]


def test_the_daemon_has_groups_and_examples() -> None:
    text = documented()["enclave-signer"]
    for heading in ("listening:", "sealing:", "signing:", "limits:", "logging:", "examples:"):
        assert f"\n{heading}\n" in text
