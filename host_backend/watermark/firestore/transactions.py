"""Reading, deciding and writing in one transaction, again and again until it is known what came of it.

- Whatever is decided is decided on what the transaction has read, and written only while that is unchanged.
- An attempt without an answer may have been done: the next one reads whether it was. So a decision must be safe to
  decide twice, on its own outcome.
- The function that decides belongs to one call, and so does the id of the attempt that is repeated: nothing is shared
  between two who try at once.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import count
from typing import TypeVar

from host_backend.errors import StoreUnavailable
from host_backend.google.documents import Document, Write
from host_backend.google.firestore import Firestore
from host_backend.google.outcomes import Contended, OutcomeUnknown
from host_backend.watermark.base import Writing

#: Seconds until it is given up: less than a signature waits for its mark.
WITHIN_S = 4.5
#: Longest pause before another attempt, in seconds; before the first one a 128th of it. Half of it is left to chance.
_PAUSE_S = 0.5
#: Tries to end a transaction in which nothing is to be written.
_ENDINGS = 5
#: Transactions that are being ended at once; of more the service lets go by itself, in a minute.
MAX_ENDING = 256
#: Seconds that are waited for them when all is over.
CLOSE_S = 2.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Reading:
    """What one attempt has read.

    Attributes:
        documents: By path; None for one that is not there.
    """

    def __init__(self, database: Firestore, transaction: bytes, documents: dict[str, Document | None]) -> None:
        self._database = database
        self._transaction = transaction
        self.documents = documents

    async def more(self, paths: Sequence[str]) -> None:
        """Read further documents."""
        self.documents |= await self._database.get_in(self._transaction, paths)


#: Decides on what was read: the answer, and the writes before it.
Decide = Callable[[Reading], Awaitable[tuple[T, Iterable[Write]]]]


class Transactions:
    """Transactions of one database."""

    def __init__(self, database: Firestore, writing: Writing = nullcontext) -> None:
        self._database = database
        self._writing = writing
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, paths: Sequence[str], decide: Decide[T], within_s: float = WITHIN_S) -> T:
        """Read documents, decide, write; return what was decided.

        Args:
            paths: The documents to read at first.
            decide: May be called several times; what it raises ends the transaction without a write.
            within_s: Seconds until it is given up.

        Raises:
            OutcomeUnknown: Not known to be done.
            StoreUnavailable: Not done.
        """
        problem = "no answer"
        try:
            async with asyncio.timeout(within_s):
                retried = b""
                for number in count():
                    attempt = _Attempt()
                    try:
                        return await self._once(paths, decide, retried, attempt)
                    except Contended as error:
                        problem, retried = str(error), attempt.transaction or retried
                    except OutcomeUnknown as error:
                        problem, retried = str(error), b""
                    finally:
                        self._end(attempt)
                    longest_s = min(_PAUSE_S, _PAUSE_S / 128 * 2 ** min(number, 8))
                    await asyncio.sleep(longest_s * (0.5 + random.random() / 2))  # noqa: S311 -- no secret
        except TimeoutError:
            raise OutcomeUnknown(f"not done within {within_s:g} s: {problem}") from None
        raise AssertionError("attempts have no end")

    async def _once(self, paths: Sequence[str], decide: Decide[T], retried: bytes, attempt: "_Attempt") -> T:
        attempt.transaction = await self._database.begin(retried)
        attempt.open = True
        documents = await self._database.get_in(attempt.transaction, paths)
        answer, writes = await decide(Reading(self._database, attempt.transaction, documents))
        writes = list(writes)
        if writes:
            with self._writing():
                await self._database.commit(writes, attempt.transaction)
            attempt.open = False
        return answer

    def _end(self, attempt: "_Attempt") -> None:
        """Release the locks of an attempt; no request waits for that, and without it the service does so in a minute."""
        if attempt.open and len(self._ending) < MAX_ENDING:
            task = asyncio.create_task(self._roll_back(attempt.transaction))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _roll_back(self, transaction: bytes) -> None:
        for _ in range(_ENDINGS):
            try:
                await self._database.roll_back(transaction)
            except StoreUnavailable:
                continue
            return

    async def aclose(self) -> None:
        """Wait until every transaction is over; the service ends those by itself that take longer than two seconds."""
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class _Attempt:
    """One transaction; open from its beginning until its commit has an answer."""

    transaction = b""
    open = False
