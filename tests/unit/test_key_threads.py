"""Threads by key: shares, what is said when there is none in time, and who keeps a thread."""

import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from enclave_signer.errors import SealingUnavailable
from enclave_signer.sealing.key_threads import KeyThreads
from tests.doubles.processes import PATIENCE_S

#: Time passes as soon as everything waits.
WAIT_S = 8.0


def play(scenario: Callable[[KeyThreads, Callable[[], None]], Awaitable[None]], total: int, share: int) -> KeyThreads:
    """Give threads, and work that lasts until the scenario is over."""
    over = threading.Event()
    threads = KeyThreads(total, share, WAIT_S)

    async def main() -> None:
        try:
            await scenario(threads, lambda: None if over.wait(PATIENCE_S) else pytest.fail("not over"))
        finally:
            over.set()

    trio.run(main, clock=MockClock(autojump_threshold=0.05))
    return threads


def test_one_key_takes_its_share_and_leaves_the_rest() -> None:
    async def scenario(threads: KeyThreads, work: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(threads.run, "slow", work)
            await wait_all_tasks_blocked()
            with pytest.raises(SealingUnavailable, match="not asked for slow: 2 calls of slow had no answer for 8 s"):
                await threads.run("slow", work)
            assert await threads.run("good", lambda: "done") == "done"
            nursery.cancel_scope.cancel()

    play(scenario, 4, 2)


def test_when_several_keys_take_all_that_is_said() -> None:
    async def scenario(threads: KeyThreads, work: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            for key in ("one", "one", "other"):
                nursery.start_soon(threads.run, key, work)
            await wait_all_tasks_blocked()
            for _ in range(2 + 1):
                # What was given back after a wait in vain can be had again.
                with pytest.raises(SealingUnavailable, match="not asked for good: 3 calls of several keys"):
                    await threads.run("good", work)
            nursery.cancel_scope.cancel()

    play(scenario, 3, 2)


def test_a_call_that_was_left_keeps_its_thread_until_it_ends() -> None:
    async def scenario(threads: KeyThreads, work: Callable[[], None]) -> None:
        with trio.move_on_after(1):
            await threads.run("slow", work)
        with pytest.raises(SealingUnavailable):
            await threads.run("slow", work)

    play(scenario, 2, 1)


def test_names_are_forgotten_with_their_last_call() -> None:
    async def scenario(threads: KeyThreads, work: Callable[[], None]) -> None:
        for number in range(100):
            await threads.run(f"key {number}", lambda: None)

    assert len(play(scenario, 2, 1)._shares) <= 1
