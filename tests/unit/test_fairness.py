"""How long one connection keeps the event loop. The clock moves when a test says so."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from enclave_signer.serving.fairness import LONGEST_PART_S, ROUND_S, WAITING_GAINS_BYTES, LargeFrames, Pace, Round

CONNECTIONS = 100
PART_S = ROUND_S / CONNECTIONS


def run(main: Callable[[MockClock, Pace], Awaitable[None]]) -> None:
    async def start() -> None:
        shared = Round()
        shared.share(CONNECTIONS)
        async with shared.going():
            await main(clock, Pace(shared))

    clock = MockClock()
    trio.run(start, clock=clock)


@pytest.mark.parametrize(("connections", "part_s"), [(0, LONGEST_PART_S), (2, LONGEST_PART_S), (256, ROUND_S / 256)])
def test_all_have_the_same_part_of_a_round(connections: int, part_s: float) -> None:
    shared = Round()
    shared.share(connections)
    assert shared.part_s == part_s


def test_nobody_gives_way_before_the_part_is_used_up() -> None:
    async def main(clock: MockClock, mine: Pace) -> None:
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
    async def main(clock: MockClock, mine: Pace) -> None:
        seen = []
        for seconds in (PART_S, 0.0):
            clock.jump(seconds)
            seen.append(mine.over)
        mine.begin()
        seen.append(mine.over)
        assert seen == [True, True, False]

    run(main)


class Looks(trio.abc.Instrument):
    """Counts the looks at the sockets."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


def test_of_several_tasks_one_goes_on_per_look() -> None:
    async def main(clock: MockClock, mine: Pace) -> None:
        looks = Looks()
        trio.lowlevel.add_instrument(looks)
        clock.jump(PART_S)
        steps: list[int] = []

        async def step() -> None:
            for _ in range(3):
                await mine.give_way()
                steps.append(looks.count)
                clock.jump(PART_S)

        async with trio.open_nursery() as working:
            for _ in range(10):
                working.start_soon(step)
        assert len(set(steps)) == len(steps) == 30

    run(main)


def test_tasks_share_what_is_left_of_a_part() -> None:
    async def main(clock: MockClock, mine: Pace) -> None:
        with assert_no_checkpoints():
            for _ in range(10):
                await mine.give_way()
                clock.jump(PART_S / 20)

    run(main)


async def decode(frames: LargeFrames, size: int, done: list[int]) -> None:
    async with frames.turn(size):
        with assert_no_checkpoints():
            done.append(size)


def test_small_frames_go_first_and_none_waits_for_ever() -> None:
    done: list[int] = []
    later = [3000] * 300

    async def main(clock: MockClock, mine: Pace) -> None:
        del clock, mine
        frames = LargeFrames()
        async with trio.open_nursery() as nursery, frames.turn(1):
            for size in (130_000, 60_000, 3000, 60_000, *later):
                nursery.start_soon(decode, frames, size, done)
                await wait_all_tasks_blocked()

    run(main)
    assert done[0] == 3000
    assert sorted(done) == sorted((130_000, 60_000, 3000, 60_000, *later))
    assert done.index(60_000) <= 57_000 // WAITING_GAINS_BYTES + 1
    assert done.index(130_000) <= 127_000 // WAITING_GAINS_BYTES + 3 < len(done) - 1


def test_between_two_large_frames_is_a_look_at_the_sockets() -> None:
    looks = Looks()
    decoded: list[int] = []

    async def note(frames: LargeFrames) -> None:
        async with frames.turn(1):
            decoded.append(looks.count)

    async def main(clock: MockClock, mine: Pace) -> None:
        trio.lowlevel.add_instrument(looks)
        del clock, mine
        frames = LargeFrames()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(note, frames)

    run(main)
    assert len(set(decoded)) == len(decoded) == 10


def test_who_leaves_keeps_nobody_waiting() -> None:
    done: list[int] = []

    async def main(clock: MockClock, mine: Pace) -> None:
        del clock, mine
        frames = LargeFrames()
        leaving = trio.CancelScope()

        async def leave() -> None:
            with leaving:
                await decode(frames, 5, done)

        async with trio.open_nursery() as nursery, frames.turn(1):
            nursery.start_soon(leave)
            nursery.start_soon(decode, frames, 7, done)
            await wait_all_tasks_blocked()
            leaving.cancel()
            await wait_all_tasks_blocked()
        # A caller that is let through and cancelled at once leaves, too.
        with trio.CancelScope() as scope:
            scope.cancel()
            await decode(frames, 9, done)
        await decode(frames, 11, done)

    run(main)
    assert done == [7, 11]
