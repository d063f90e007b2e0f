"""Places of transactions: how many are under way at once, who waits for one, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from weakref import WeakValueDictionary

from host_backend.errors import HostError, StoreUnavailable, TooManyWait
from host_backend.watermark.firestore.first_marks import FirstMarks
from host_backend.watermark.firestore.transactions import WITHIN_S
from host_backend.watermark.rule import MarkKey

#: Transactions at once: each has two or three calls of some tens of milliseconds, on one connection that takes 100.
MAX_TRANSACTIONS = 64
#: Of one key: it has three rights, on a chain or two, and must not hold up others with more.
MAX_TRANSACTIONS_OF_KEY = 8
#: Of first marks, beside those: they have waited for each other already, and others wait for them.
MAX_FIRST_MARKS = 16
#: Seconds that one waits for its place: as long as it may take then.
WAIT_S = WITHIN_S


class NotBegun(Exception):
    """Nothing was asked of Firestore, which says nothing about it.

    Attributes:
        error: For those who still wait, if any; None when no more is begun.
    """

    def __init__(self, error: HostError | None = None) -> None:
        super().__init__(error)
        self.error = error


class TransactionPlaces:
    """The places of one store. Belongs to the event loop that runs when it is made."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MAX_TRANSACTIONS)
        self._free_of_keys: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._free_for_first = asyncio.Semaphore(MAX_FIRST_MARKS)
        self._first_marks = FirstMarks()
        #: Of those that wait.
        self._limits: set[asyncio.Timeout] = set()
        self.closed = False

    def close(self) -> None:
        """Give no more places."""
        self.closed = True
        for limit in self._limits:
            # An error where the limit has been reached already.
            with suppress(RuntimeError):
                limit.reschedule(asyncio.get_running_loop().time())

    def any(self, key: MarkKey) -> AbstractAsyncContextManager[None]:
        """Wait for a place, and have it inside.

        Raises:
            NotBegun: There are too many others, or no places any more.
        """
        of_key = self._free_of_keys.setdefault(key.pkh, asyncio.Semaphore(MAX_TRANSACTIONS_OF_KEY))
        return self._after((of_key, self._free))

    def first(self, key: MarkKey, noted: Iterable[str]) -> AbstractAsyncContextManager[None]:
        """Wait for a place in which a first mark is written, and have it inside.

        Args:
            key: Whose mark; it was judged, and may be written.
            noted: Chains that the store has, as read a moment ago.

        Raises:
            NotBegun: As for `any`.
        """
        return self._after((self._first_marks.turn(key, noted), self._free_for_first))

    @asynccontextmanager
    async def _after(self, turns: Iterable[AbstractAsyncContextManager[None]]) -> AsyncIterator[None]:
        if self.closed:
            raise NotBegun
        async with AsyncExitStack() as taken:
            limit = asyncio.timeout(WAIT_S)
            self._limits.add(limit)
            try:
                async with limit:
                    for turn in turns:
                        await taken.enter_async_context(turn)
            except TimeoutError:
                late = f"not begun within {WAIT_S:g} s: too many other marks are being written: send fewer at once"
                raise NotBegun(None if self.closed else StoreUnavailable(late)) from None
            except TooManyWait as error:
                raise NotBegun(error) from None
            finally:
                self._limits.discard(limit)
            yield
