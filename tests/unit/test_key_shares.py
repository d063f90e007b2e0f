"""Places by key: shares, the text when there is none in time, and that they are given back."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from enclave_signer.errors import SealingUnavailable
from enclave_signer.sealing.key_shares import KeyShares

#: Time passes as soon as everything waits.
WAIT_S = 8.0


def play(scenario: Callable[[KeyShares], Awaitable[None]], total: int, share: int) -> KeyShares:
    """Give places to a scenario."""
    shares = KeyShares(total, share, WAIT_S)
    trio.run(scenario, shares, clock=MockClock(autojump_threshold=0))
    return shares


async def hang(shares: KeyShares, key: str) -> None:
    async with shares.place(key):
        await trio.sleep_forever()


async def work(shares: KeyShares, key: str) -> str:
    async with shares.place(key):
        return "done"


def test_one_key_takes_its_share_and_leaves_the_rest() -> None:
    async def scenario(shares: KeyShares) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(hang, shares, "slow")
            await wait_all_tasks_blocked()
            with pytest.raises(SealingUnavailable, match="not asked for slow: 2 calls of slow had no answer for 8 s"):
                await work(shares, "slow")
            assert await work(shares, "good") == "done"
            nursery.cancel_scope.cancel()

    play(scenario, 4, 2)


def test_when_several_keys_take_all_that_is_said() -> None:
    async def scenario(shares: KeyShares) -> None:
        async with trio.open_nursery() as nursery:
            for key in ("one", "one", "other"):
                nursery.start_soon(hang, shares, key)
            await wait_all_tasks_blocked()
            for _ in range(2 + 1):
                # What was given back after a wait in vain can be had again.
                with pytest.raises(SealingUnavailable, match="not asked for good: 3 calls of several keys"):
                    await work(shares, "good")
            nursery.cancel_scope.cancel()

    play(scenario, 3, 2)


def test_a_call_that_was_left_gives_its_place_back() -> None:
    async def scenario(shares: KeyShares) -> None:
        with trio.move_on_after(1):
            await hang(shares, "slow")
        assert await work(shares, "slow") == "done"

    play(scenario, 1, 1)


def test_names_are_forgotten_with_their_last_call() -> None:
    async def scenario(shares: KeyShares) -> None:
        for number in range(100):
            await work(shares, f"key {number}")

    assert len(play(scenario, 2, 1)._shares) <= 1
