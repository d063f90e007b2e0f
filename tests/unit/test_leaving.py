"""Requests whose client leaves: what waits ends, everything else is finished."""

import asyncio
from collections.abc import Coroutine

import pytest

from host_backend.errors import ClientLeft
from host_backend.leaving import leave, waiting


class Course:
    """A request that does something, waits, does something else, and waits again."""

    def __init__(self) -> None:
        self.gates = [asyncio.Event() for _ in range(4)]
        self.done: list[int] = []
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        for number, gate in enumerate(self.gates):
            if number % 2:
                with waiting():
                    await gate.wait()
            else:
                await gate.wait()
            self.done.append(number)

    async def go_on_to(self, number: int) -> None:
        for gate in self.gates[:number]:
            gate.set()
        for _ in range(2 * len(self.gates)):
            await asyncio.sleep(0)


def play(scenario: Coroutine[None, None, None]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(run())


@pytest.mark.parametrize(("left_at", "ends_after"), [(0, 1), (1, 1), (2, 3), (3, 3)])
def test_a_request_ends_where_it_waits_next(left_at: int, ends_after: int) -> None:
    async def scenario() -> None:
        course = Course()
        await course.go_on_to(left_at)
        leave(course.task)
        await course.go_on_to(ends_after)
        with pytest.raises(ClientLeft):
            await course.task
        assert course.done == list(range(ends_after))
        assert not course.task.cancelling()

    play(scenario())


def test_a_request_of_a_client_that_stays_is_finished() -> None:
    async def scenario() -> None:
        course = Course()
        await course.go_on_to(4)
        await course.task
        assert course.done == [0, 1, 2, 3]

    play(scenario())


@pytest.mark.parametrize("left", [True, False])
def test_whoever_ends_a_task_for_another_reason_does_so(*, left: bool) -> None:
    async def scenario() -> None:
        course = Course()
        await course.go_on_to(1)
        if left:
            leave(course.task)
        course.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await course.task

    play(scenario())


def test_a_time_limit_inside_is_one_still() -> None:
    async def limited(gate: asyncio.Event) -> None:
        with waiting():
            async with asyncio.timeout(0):
                await gate.wait()

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.create_task(limited(asyncio.Event()))

    play(scenario())
