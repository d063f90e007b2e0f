"""Threads for calls that block: a number in all, and a share of them for each key-encryption key.

Without shares, a key that its service does not answer for takes every thread, and no other key opens meanwhile.
"""

from collections.abc import Callable
from typing import TypeVar, cast
from weakref import WeakValueDictionary

import trio

from enclave_signer.errors import SealingUnavailable

T = TypeVar("T")


class KeyThreads:
    """Threads for calls that block.

    Args:
        total: Threads in all.
        share: The most for the calls of one key.
        wait_s: Seconds for which a call waits for a thread.
    """

    def __init__(self, total: int, share: int, wait_s: float) -> None:
        self._all = trio.CapacityLimiter(total)
        self._share = share
        self._wait_s = wait_s
        #: Of the keys that calls are under way for: clients choose among many names where a prefix is allowed.
        self._shares: WeakValueDictionary[str, trio.CapacityLimiter] = WeakValueDictionary()

    async def run(self, key: str, work: Callable[[], T]) -> T:
        """Return what some work for a key returns; a cancelled caller does not wait for it.

        Raises:
            SealingUnavailable: It got no thread in time; it was not begun.
        """
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = trio.CapacityLimiter(self._share)
        place = _Place(key, share, self._all, self._wait_s)
        # trio takes whatever acquires and releases as its own limiter does.
        limiter = cast("trio.CapacityLimiter", place)
        return await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)


class _Place:
    """A thread of a key's share. The thread gives it back when it ends, also where its caller has left."""

    def __init__(self, key: str, share: trio.CapacityLimiter, everyone: trio.CapacityLimiter, wait_s: float) -> None:
        self._key = key
        self._share = share
        self._all = everyone
        self._wait_s = wait_s

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a thread."""
        busy = self._share
        with trio.move_on_after(self._wait_s):
            await self._share.acquire_on_behalf_of(borrower)
            try:
                busy = self._all
                await self._all.acquire_on_behalf_of(borrower)
            except BaseException:
                self._share.release_on_behalf_of(borrower)
                raise
            return
        whose = f"of {self._key}" if busy is self._share else "of several keys"
        raise SealingUnavailable(
            f"not asked for {self._key}: {busy.total_tokens:g} calls {whose} had no answer for {self._wait_s:g} s"
        )

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give it back."""
        self._all.release_on_behalf_of(borrower)
        self._share.release_on_behalf_of(borrower)
