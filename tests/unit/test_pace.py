"""How long one connection keeps the event loop. The clock moves when a test says so."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, assert_no_checkpoints

from enclave_signer.pace import LONGEST_PART_S, ROUND_S, Pace, Round

CONNECTIONS = 100
PART_S = ROUND_S / CONNECTIONS


def run(main: Callable[[MockClock], Awaitable[None]]) -> None:
    clock = MockClock()
    trio.run(main, clock, clock=clock)


def pace() -> Pace:
    shared = Round()
    shared.share(CONNECTIONS)
    return Pace(shared)


@pytest.mark.parametrize(("connections", "part_s"), [(0, LONGEST_PART_S), (2, LONGEST_PART_S), (256, ROUND_S / 256)])
def test_all_have_the_same_part_of_a_round(connections: int, part_s: float) -> None:
    shared = Round()
    shared.share(connections)
    assert shared.part_s == part_s


def test_nobody_gives_way_before_the_part_is_used_up() -> None:
    async def main(clock: MockClock) -> None:
        mine = pace()
        clock.jump(PART_S / 2)
        with assert_no_checkpoints():
            await mine.give_way()
        clock.jump(PART_S / 2)
        with assert_checkpoints():
            await mine.give_way()
        with assert_no_checkpoints():
            await mine.give_way()
        assert mine.began == trio.current_time()

    run(main)


def test_a_new_beginning_is_a_whole_part() -> None:
    async def main(clock: MockClock) -> None:
        mine = pace()
        seen = []
        for seconds in (PART_S, 0.0):
            clock.jump(seconds)
            seen.append(mine.over)
        mine.begin()
        seen.append(mine.over)
        assert seen == [True, True, False]

    run(main)


def test_of_several_tasks_one_goes_on_per_round() -> None:
    async def main(clock: MockClock) -> None:
        mine = pace()
        rounds = 0
        steps: list[int] = []

        async def step() -> None:
            for _ in range(3):
                await mine.give_way()
                steps.append(rounds)
                clock.jump(PART_S)

        async with trio.open_nursery() as counting:

            async def count() -> None:
                nonlocal rounds
                while True:
                    await trio.lowlevel.checkpoint()
                    rounds += 1

            counting.start_soon(count)
            async with trio.open_nursery() as working:
                for _ in range(10):
                    working.start_soon(step)
            counting.cancel_scope.cancel()
        assert len(steps) == 30
        # The counter may run before or after a step of the same round.
        assert max(steps.count(number) for number in steps) <= 2
        assert len(set(steps)) > 20

    run(main)


def test_tasks_share_what_is_left_of_a_part() -> None:
    async def main(clock: MockClock) -> None:
        mine = pace()
        with assert_no_checkpoints():
            for _ in range(10):
                await mine.give_way()
                clock.jump(PART_S / 20)

    run(main)
