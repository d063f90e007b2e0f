"""Clocks that a test moves, and work that is done at once."""

import asyncio
from typing import TypeVar

from host_backend.steps import Steps, Work

T = TypeVar("T")


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class BusyClock(Clock):
    """A clock on which any look at it takes as long as a step, so that every yield of work ends one."""

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def eager_steps() -> Steps:
    """Return steps that are over at every yield, with one pass of the loop between two."""
    return Steps(BusyClock(), lambda: asyncio.sleep(0))


def done(work: Work[T]) -> T:
    """Do work without a pause; return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
