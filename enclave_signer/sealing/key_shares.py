"""Calls under way to one service: a number in all, and a share of them for each key-encryption key.

Without shares, a key that its service does not answer for takes every place, and no other key opens meanwhile.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import trio

from enclave_signer.errors import SealingUnavailable


class KeyShares:
    """Places for calls under way.

    Args:
        total: Calls in all.
        share: The most for one key.
        wait_s: Seconds for which a call waits for a place.
    """

    def __init__(self, total: int, share: int, wait_s: float) -> None:
        self._all = trio.CapacityLimiter(total)
        self._share = share
        self._wait_s = wait_s
        #: Of the keys that calls are under way for: clients choose among many names where a prefix is allowed.
        self._shares: WeakValueDictionary[str, trio.CapacityLimiter] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Give a place for a call for a key.

        Raises:
            SealingUnavailable: There was none in time.
        """
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = trio.CapacityLimiter(self._share)
        await self._take(key, share)
        try:
            yield
        finally:
            self._all.release()
            share.release()

    async def _take(self, key: str, share: trio.CapacityLimiter) -> None:
        busy = share
        with trio.move_on_after(self._wait_s):
            await share.acquire()
            try:
                busy = self._all
                await self._all.acquire()
            except BaseException:
                share.release()
                raise
            return
        whose = f"of {key}" if busy is share else "of several keys"
        raise SealingUnavailable(
            f"not asked for {key}: {busy.total_tokens:g} calls {whose} had no answer for {self._wait_s:g} s"
        )
