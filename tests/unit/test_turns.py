"""Whose turn it is. The assertions hold in whatever order trio runs the tasks of one pass."""

import itertools
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from enclave_signer.serving.fairness import AHEAD_TURNS, TURNS_PER_LOOK, Standing, Turns

BUSY = 40


class Looks(trio.abc.Instrument):
    """Counts the looks at the sockets."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


class Loop:
    """The turns, and in which order and at which look they were taken."""

    def __init__(self, turns: Turns, looks: Looks, nursery: trio.Nursery) -> None:
        self.turns = turns
        self.nursery = nursery
        self._looks = looks
        self.taken: list[str] = []
        self.at: list[int] = []

    async def client(self, name: str, turns: int, standing: Standing | None = None) -> None:
        """Take turns one after the other, as fast as they are given."""
        standing = standing or Standing()
        for _ in range(turns):
            if not self.turns.take(standing):
                await self.turns.wait(standing)
            self.taken.append(name)
            self.at.append(self._looks.count)

    async def crowd(self, turns: int, names: str = "busy") -> None:
        """Start clients that are busy, and let them use up what they have ahead."""
        for number in range(BUSY):
            self.nursery.start_soon(self.client, f"{names} {number}", AHEAD_TURNS + turns)
        while len(self.taken) < BUSY * (AHEAD_TURNS + 1):
            await trio.lowlevel.checkpoint()


def run(main: Callable[[Loop], Awaitable[None]]) -> Loop:
    async def start() -> Loop:
        turns, looks = Turns(), Looks()
        trio.lowlevel.add_instrument(looks)
        trio.lowlevel.add_instrument(turns)
        async with trio.open_nursery() as giving:
            giving.start_soon(turns.give)
            async with trio.open_nursery() as nursery:
                loop = Loop(turns, looks, nursery)
                await main(loop)
            giving.cancel_scope.cancel()
        return loop

    return trio.run(start)


def test_where_few_are_busy_nobody_waits() -> None:
    async def main(loop: Loop) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            with trio.testing.assert_no_checkpoints():
                await loop.client("alone", TURNS_PER_LOOK // 2)

    run(main)


def test_the_busy_have_one_turn_each_before_any_has_a_second() -> None:
    async def main(loop: Loop) -> None:
        await loop.crowd(turns=10)

    taken = run(main).taken[BUSY * (AHEAD_TURNS + 1) :]
    for start in range(0, 8 * BUSY, BUSY):
        # Within one look the order is trio's.
        assert len(set(taken[start : start + BUSY])) >= BUSY - TURNS_PER_LOOK


def test_few_turns_lie_between_two_looks_at_the_sockets() -> None:
    async def main(loop: Loop) -> None:
        await loop.crowd(turns=10)

    at = run(main).at
    assert max(at.count(look) for look in set(at)) <= 2 * TURNS_PER_LOOK


def test_a_newcomer_goes_ahead_of_the_busy() -> None:
    async def main(loop: Loop) -> None:
        await loop.crowd(turns=50)
        before.append(len(loop.taken))
        await loop.client("new", 5)

    before: list[int] = []
    # Each of its turns comes with the next look; the busy have theirs meanwhile.
    assert run(main).taken[before[0] :][: 5 * 3 * TURNS_PER_LOOK].count("new") == 5


def test_who_asks_seldom_goes_ahead_of_the_busy_as_well() -> None:
    async def main(loop: Loop) -> None:
        host = Standing()
        await loop.client("host", 1000, host)
        loop.taken.clear()
        await loop.crowd(turns=50)
        before.append(len(loop.taken))
        await loop.client("host", 5, host)

    before: list[int] = []
    assert run(main).taken[before[0] :][: 5 * 3 * TURNS_PER_LOOK].count("host") == 5


def test_who_was_idle_has_so_many_ahead_and_then_one_as_everybody() -> None:
    async def main(loop: Loop) -> None:
        await loop.crowd(turns=300)
        before.append(len(loop.taken))
        await loop.client("greedy", 4 * AHEAD_TURNS)

    before: list[int] = []
    taken = run(main).taken[before[0] :]
    places = [place for place, name in enumerate(taken) if name == "greedy"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(places)]
    assert max(gaps[: AHEAD_TURNS - 2]) <= 3 * TURNS_PER_LOOK
    last = gaps[-20:]
    assert sum(last) / len(last) == pytest.approx(BUSY + 1, abs=8)


def test_newcomers_without_end_stop_nobody() -> None:
    async def main(loop: Loop) -> None:
        await loop.crowd(turns=10)
        before.append(len(loop.taken))
        loop.nursery.start_soon(newcomers, loop)

    async def newcomers(loop: Loop) -> None:
        for number in range(100):
            for other in range(TURNS_PER_LOOK):
                loop.nursery.start_soon(loop.client, f"new {number} {other}", 1)
            await trio.lowlevel.checkpoint()

    before: list[int] = []
    taken = run(main).taken[before[0] :][: 50 * TURNS_PER_LOOK]
    busy = sum(name.startswith("busy") for name in taken)
    assert len(taken) // 8 < busy < len(taken) // 2


def test_who_leaves_costs_no_turn() -> None:
    async def main(loop: Loop) -> None:
        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await loop.client("gone", 1)

        for number in range(10 * TURNS_PER_LOOK):
            loop.nursery.start_soon(loop.client, str(number), 1)
        await trio.lowlevel.checkpoint()
        loop.nursery.start_soon(leave)
        await trio.lowlevel.checkpoint()
        leaving.cancel()

    loop = run(main)
    assert "gone" not in loop.taken
    assert len(loop.taken) == 10 * TURNS_PER_LOOK
