"""A time limit ends what is awaited inside, and nothing else."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from host_backend.time_limit import LATE_S, TimeLimit

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
        with TimeLimit(LONG_S).wait():
            await asyncio.sleep(0)
        with pytest.raises(ValueError, match="mine"), TimeLimit(LONG_S).wait():
            raise ValueError("mine")

    run(scenario())


def test_what_takes_longer_is_ended_and_the_task_goes_on() -> None:
    async def scenario() -> None:
        with pytest.raises(TimeoutError), TimeLimit(SHORT_S).wait():
            await for_ever()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(scenario())


def test_the_inner_of_two_limits_ends_the_inner_part() -> None:
    async def scenario() -> None:
        with TimeLimit(LONG_S).wait():
            with pytest.raises(TimeoutError), TimeLimit(SHORT_S).wait():
                await for_ever()
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), TimeLimit(SHORT_S).wait(), TimeLimit(LONG_S).wait():
            await for_ever()

    run(scenario())


@pytest.mark.parametrize("seconds", [LONG_S, SHORT_S])
def test_a_task_that_is_cancelled_ends_as_cancelled_whatever_its_limit(seconds: float) -> None:
    async def limited() -> None:
        with TimeLimit(seconds).wait():
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
        with TimeLimit(SHORT_S).wait():
            pass
        with TimeLimit(LONG_S).wait():
            # Were it still armed, the first limit would end this.
            for _ in range(100):
                await asyncio.sleep(0)

    run(scenario())


def test_outside_of_a_task_there_is_nothing_to_end() -> None:
    with pytest.raises(RuntimeError), TimeLimit(LONG_S).wait():
        pass


def test_waits_of_one_limit_end_in_turn_and_those_that_ended_before_are_left_alone() -> None:
    async def in_time(limit: TimeLimit, late_ended: asyncio.Event) -> str:
        with limit.wait():
            pass
        # Were it still counted, the limit would end this before those that began later.
        await late_ended.wait()
        return "in time"

    async def late(limit: TimeLimit) -> str:
        with pytest.raises(TimeoutError), limit.wait():
            await for_ever()
        return "late"

    async def scenario() -> None:
        limit = TimeLimit(SHORT_S)
        for _ in range(3):
            late_ended = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                left_alone = [group.create_task(in_time(limit, late_ended)) for _ in range(3)]
                assert await asyncio.gather(*(late(limit) for _ in range(3))) == ["late"] * 3
                late_ended.set()
            assert [task.result() for task in left_alone] == ["in time"] * 3

    run(scenario())


def test_one_timer_is_enough_for_all_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop, limit, armed = asyncio.get_running_loop(), TimeLimit(LONG_S), 0
        call_later = loop.call_later

        def counted(*arguments: Any) -> asyncio.TimerHandle:
            nonlocal armed
            armed += 1
            return call_later(*arguments)

        monkeypatch.setattr(loop, "call_later", counted)
        for _ in range(10):
            with limit.wait(), limit.wait():
                await asyncio.sleep(0)
        assert armed == 1

    run(scenario())


def test_a_limit_goes_on_in_another_event_loop() -> None:
    limit = TimeLimit(SHORT_S)

    async def scenario() -> None:
        with pytest.raises(TimeoutError), limit.wait():
            await for_ever()

    async def ends_first() -> None:
        with limit.wait():
            pass

    run(ends_first())
    run(scenario())


class _LateLoop(TimeLimit):
    """A limit whose first look is late: something has come by then, which the loop has not read."""

    def __init__(self, come: Callable[[], object]) -> None:
        super().__init__(SHORT_S)
        self._come = come
        self._was_late = False

    def _look(self) -> None:
        if not self._was_late:
            self._was_late = True
            self._come()
            self._due -= 2 * LATE_S
        super()._look()


@pytest.mark.parametrize("run_in", [asyncio.run, uvloop.run])
def test_what_came_while_the_loop_was_late_is_not_thrown_away(
    run_in: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)

            with _LateLoop(lambda: there.send(b"a")).wait():
                assert await loop.sock_recv(here, 1) == b"a"
            with pytest.raises(TimeoutError), _LateLoop(lambda: None).wait():
                await loop.sock_recv(here, 1)

    run_in(scenario())


class _Looks(TimeLimit):
    count = 0

    def _look(self) -> None:
        self.count += 1
        super()._look()


def test_a_limit_does_not_keep_the_loop_busy() -> None:
    waits = 40

    async def too_long(limit: TimeLimit) -> None:
        with pytest.raises(TimeoutError), limit.wait():
            await for_ever()

    async def scenario() -> None:
        # The part of a millisecond is one that uvloop's timers do not know.
        limit = _Looks(0.0403)
        async with asyncio.TaskGroup() as group:
            for _ in range(waits):
                group.create_task(too_long(limit))
                await asyncio.sleep(0.0017)
        assert limit.count <= 4 * waits

    uvloop.run(scenario())
