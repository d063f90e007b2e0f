"""Arguments and options of several commands that change marks."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click

from enclave_signer.tezos import Right
from host_backend.cli.parameters import Choice, KeyHash, Whole

P = ParamSpec("P")
R = TypeVar("R")

_MARK = (
    click.argument("chain_id"),
    click.argument("pkh", type=KeyHash()),
    click.argument("right", type=Choice([right.value for right in Right])),
    click.argument("level", type=Whole()),
    click.option("--round", "round_", type=Whole(), default=0, show_default=True, help="Round of the mark."),
)
_YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
_REBUILDING = (
    click.option(
        "--above-level",
        type=Whole(),
        required=True,
        help="A level at or above everything that may have been signed: nothing at or below it is signed again.",
    ),
    click.option(
        "--chain", "chains", multiple=True, metavar="CHAIN_ID", help="Chain on which keys get marks; can be repeated."
    ),
    _YES,
)


def takes_mark(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the arguments that name a right, and the level and round of its mark."""
    return _with(_MARK, command)


def takes_rebuilding(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the options of a store that is rebuilt: above which level, for which chains, without a question."""
    return _with(_REBUILDING, command)


def takes_yes(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command `--yes`."""
    return _with((_YES,), command)


def _with(
    decorators: tuple[Callable[[Callable[P, R]], Callable[P, R]], ...], command: Callable[P, R]
) -> Callable[P, R]:
    """Decorate a command as if the decorators stood above it in this order."""
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
