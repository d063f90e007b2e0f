"""A time limit ends what is awaited inside, and nothing else."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from host_backend.time_limit import TimeLimit

LONG_S = 3600.0
SHORT_S = 1e-6


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(within_a_minute())


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_what_ends_in_time_is_left_alone() -> None:
    async def scenario() -> None:
        with TimeLimit(LONG_S):
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="mine"), TimeLimit(LONG_S):
            raise ValueError("mine")

    run(scenario())


def test_what_takes_longer_is_ended_and_the_task_goes_on() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError), TimeLimit(SHORT_S):
            await for_ever()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(scenario())


def test_the_inner_of_two_limits_ends_the_inner_part() -> None:
    async def scenario() -> None:
        with TimeLimit(LONG_S):
            with pytest.raises(TimeoutError), TimeLimit(SHORT_S):
                await for_ever()
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), TimeLimit(SHORT_S), TimeLimit(LONG_S):
            await for_ever()

    run(scenario())


@pytest.mark.parametrize("seconds", [LONG_S, SHORT_S])
def test_a_task_that_is_cancelled_ends_as_cancelled_whatever_its_limit(seconds: float) -> None:
    async def limited() -> None:
        with TimeLimit(seconds):
            try:
                await for_ever()
            except asyncio.CancelledError:
                # The limit or the canceller was first: here both have come.
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                raise

    async def scenario() -> None:
        task = asyncio.create_task(limited())
        await asyncio.sleep(0)
        if seconds == LONG_S:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())


def test_the_timer_does_not_outlive_what_was_limited() -> None:
    async def scenario() -> None:
        with TimeLimit(SHORT_S):
            pass
        with TimeLimit(LONG_S):
            # Were it still armed, the first limit would end this.
            for _ in range(100):
                await asyncio.sleep(0)

    run(scenario())


def test_outside_of_a_task_there_is_nothing_to_end() -> None:
    with pytest.raises(RuntimeError), TimeLimit(LONG_S):
        pass
