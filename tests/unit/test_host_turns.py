"""Whose turn it is at the host: one at a time, addresses in turn, small before large, and a line with an end."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable

import pytest

from host_backend.errors import ClientLeft, TooManyWait
from host_backend.leaving import leave
from host_backend.turns import SWITCH_S, WAITING_GAINS_BYTES, Turns

PATIENCE_S = 60.0
HOLDER, ONE, OTHER, THIRD = "203.0.113.1", "192.0.2.1", "192.0.2.2", "2001:db8::1"


class Line:
    """Requests that come while somebody has the turn, and in which order they had theirs."""

    def __init__(self, *, share: int = 100, limit: int = 1000) -> None:
        self.turns = Turns("requests", share=share, limit=limit)
        self.had: list[str] = []
        self.refused: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, address: str = ONE, size_bytes: int = 0) -> asyncio.Task[None]:
        """Let a request come to the line."""

        async def ask() -> None:
            try:
                async with self.turns.turn(address, size_bytes):
                    self.had.append(name)
            except TooManyWait as error:
                self.refused[name] = str(error)

        self._tasks[name] = asyncio.create_task(ask())
        await asyncio.sleep(0)
        return self._tasks[name]

    async def end(self) -> None:
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        assert len(self.turns) == 0


def behind_one(scenario: Callable[[Line], Awaitable[None]], line: Line) -> Line:
    """Play a scenario while somebody has the turn, and let all who wait have theirs."""

    async def run() -> None:
        async with line.turns.turn(HOLDER):
            await scenario(line)
            assert line.had == []
        await line.end()
        # No one holds it any more.
        await line.come("last")
        await line.end()
        assert line.had.pop() == "last"

    asyncio.run(run())
    return line


def test_addresses_take_turns() -> None:
    async def scenario(line: Line) -> None:
        for number in range(3):
            await line.come(f"one {number}", ONE)
        await line.come("other 0", OTHER)
        await line.come("other 1", OTHER)
        await line.come("third", THIRD)

    had = behind_one(scenario, Line()).had
    assert had == ["one 0", "other 0", "third", "one 1", "other 1", "one 2"]


def test_whoever_had_the_turn_goes_behind_the_others() -> None:
    async def scenario(line: Line) -> None:
        await line.come("again", HOLDER)
        await line.come("and again", HOLDER)
        await line.come("one", ONE)

    assert behind_one(scenario, Line()).had == ["one", "again", "and again"]


def test_a_network_is_one_address() -> None:
    async def scenario(line: Line) -> None:
        await line.come("first", "2001:db8::1")
        await line.come("second", "2001:db8::ffff:2")
        await line.come("other", OTHER)
        await line.come("socket", "")

    assert behind_one(scenario, Line()).had == ["first", "other", "socket", "second"]


def test_the_small_go_first() -> None:
    async def scenario(line: Line) -> None:
        for name, size_bytes in (("large", 65536), ("small", 2000), ("next", 2000), ("smaller", 600)):
            await line.come(name, ONE, size_bytes)

    assert behind_one(scenario, Line()).had == ["smaller", "small", "next", "large"]


def test_small_ones_without_end_do_not_stop_a_large_one() -> None:
    large_bytes = 20 * WAITING_GAINS_BYTES

    async def scenario(line: Line) -> None:
        await line.come("large", ONE, large_bytes)
        for number in range(30):
            await line.come(str(number), ONE)

    assert behind_one(scenario, Line()).had.index("large") == 19


def test_an_address_over_its_share_loses_its_last() -> None:
    async def scenario(line: Line) -> None:
        for name, size_bytes in (("large", 65536), ("small", 2000), ("smaller", 600), ("largest", 70000)):
            await line.come(name, ONE, size_bytes)
        await line.come("other", OTHER, 70000)

    line = behind_one(scenario, Line(share=2))
    assert line.had == ["smaller", "other", "small"]
    assert set(line.refused) == {"large", "largest"}
    text = "2 requests of this address wait already: send fewer at once, try again later"
    assert line.refused["large"] == text


def test_a_full_line_loses_the_last_of_whoever_has_most_in_it() -> None:
    async def scenario(line: Line) -> None:
        for name in ("a", "b", "c"):
            await line.come(name, ONE)
        await line.come("other", OTHER)
        await line.come("third", THIRD)

    line = behind_one(scenario, Line(limit=4))
    assert line.had == ["a", "other", "third", "b"]
    assert line.refused == {"c": "4 requests wait already: try again later"}


def test_a_full_line_of_many_addresses() -> None:
    async def scenario(line: Line) -> None:
        for number in range(3):
            await line.come(str(number), f"192.0.2.{number}")

    line = behind_one(scenario, Line(limit=2))
    assert line.had == ["0", "1"]
    assert set(line.refused) == {"2"}


def test_whoever_leaves_the_line_holds_up_nobody() -> None:
    async def scenario(line: Line) -> None:
        leaver = await line.come("leaver")
        await line.come("stays")
        alone = await line.come("alone", OTHER)
        leaver.cancel()
        alone.cancel()
        await asyncio.sleep(0)
        assert len(line.turns) == 1

    assert behind_one(scenario, Line()).had == ["stays"]


@pytest.mark.parametrize("passes", range(4))
def test_whoever_leaves_when_its_turn_comes_passes_it_on(passes: int) -> None:
    async def run() -> None:
        line = Line()
        async with line.turns.turn(ONE):
            leaver = await line.come("leaver")
            await line.come("next")
        for _ in range(passes):
            await asyncio.sleep(0)
        leaver.cancel()
        await line.end()
        assert line.had[-1] == "next"
        await line.come("last")
        await line.end()
        assert line.had[-1] == "last"

    asyncio.run(run())


def test_a_refused_one_that_leaves_passes_on_nothing() -> None:
    async def run() -> None:
        line = Line(share=1)
        async with line.turns.turn(ONE):
            await line.come("first")
            refused = asyncio.create_task(line.turns.turn(ONE, 1).__aenter__())
            await asyncio.sleep(0)
            refused.cancel()
            await asyncio.gather(refused, return_exceptions=True)
            assert line.had == []
        await line.end()
        assert line.had == ["first"]

    asyncio.run(run())


def test_a_failure_passes_the_turn_on() -> None:
    async def fail(line: Line) -> None:
        async with line.turns.turn(ONE):
            await line.come("next")
            raise RuntimeError

    async def run() -> None:
        line = Line()
        with pytest.raises(RuntimeError):
            await fail(line)
        await line.end()
        assert line.had == ["next"]

    asyncio.run(run())


def test_the_loop_goes_on_before_each_turn() -> None:
    async def run() -> None:
        line = Line()
        passes = 0
        passes_at: list[int] = []

        async def ask() -> None:
            async with line.turns.turn(ONE):
                passes_at.append(passes)

        asked = [asyncio.ensure_future(ask()) for _ in range(20)]
        while not all(each.done() for each in asked):
            passes += 1
            await asyncio.sleep(0)
        assert len(set(passes_at)) == 20

    asyncio.run(run())


def test_what_computes_lets_others_go_on_often_and_only_meanwhile() -> None:
    usual_s = sys.getswitchinterval()
    assert usual_s != pytest.approx(SWITCH_S)

    def work(switch_s: float, *, other_ended: threading.Event | None = None) -> str:
        assert threading.current_thread() is not threading.main_thread()
        if other_ended is not None:
            other_ended.wait(PATIENCE_S)
        assert sys.getswitchinterval() == pytest.approx(switch_s)
        return "done"

    async def run() -> None:
        one, other = (Turns("requests", share=1, limit=1) for _ in range(2))
        ended = threading.Event()
        longer = asyncio.create_task(one.compute(ONE, 0, work, SWITCH_S, other_ended=ended))
        assert await other.compute(ONE, 0, work, SWITCH_S) == "done"
        ended.set()
        assert await longer == "done"
        with pytest.raises(AssertionError):
            await one.compute(ONE, 0, work, usual_s)
        await one.compute(ONE, 0, work, SWITCH_S)

    asyncio.run(run())
    assert sys.getswitchinterval() == pytest.approx(usual_s)


def test_whoever_leaves_gives_its_place_in_the_line_up_at_once() -> None:
    async def scenario(line: Line) -> None:
        await line.come("stays")
        task = await line.come("leaves")
        leave(task)
        with pytest.raises(ClientLeft):
            await task
        assert len(line.turns) == 1
        await line.come("another")

    assert behind_one(scenario, Line(share=2)).had == ["stays", "another"]


def test_what_is_computed_for_whoever_leaves_keeps_the_turn() -> None:
    async def scenario() -> None:
        turns = Turns("requests", share=9, limit=9)
        begun, end = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            assert end.wait(PATIENCE_S)

        task = asyncio.create_task(turns.compute(ONE, 0, work))
        await begun.wait()
        leave(task)
        behind = asyncio.create_task(turns.compute(OTHER, 0, int))
        await asyncio.sleep(0)
        assert len(turns) == 1
        end.set()
        await task
        assert await behind == 0

    asyncio.run(scenario())
