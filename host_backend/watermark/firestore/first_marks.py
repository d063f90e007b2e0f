"""Whose turn it is to write a first mark: its chain is noted in documents that other first marks write, too.

- Those who write the same document go one after the other: in one host they need not meet in Firestore.
- Of a chain that is new to the whole store one first mark goes through the store's document. The others on that chain wait
  for it, and then write their own key's document alone.
- Only an allowed mark takes a turn, and a key is allowed few chains. Few of them may wait at once, so that one key does
  not hold up all others.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from host_backend.errors import TooManyWait
from host_backend.watermark.rule import MarkKey

#: Chains on which first marks of one key wait: as many as it may ever have, and half as many that will be refused.
MAX_CHAINS_OF_KEY = 24
#: Chains new to the store on which first marks wait: the last one has its turn after some three seconds.
MAX_NEW_CHAINS = 32
#: Stands for the store's document where others stand for a chain or a key.
_STORE = ""


class FirstMarks:
    """The first marks that wait in one host. It decides who goes first, never whether a mark is allowed."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        #: By key, or the store: how many first marks wait on which chain.
        self._waiting: dict[str, Counter[str]] = {}
        #: Chains that the store was seen to have: it may not have them any more.
        self._noted: set[str] = set()

    @asynccontextmanager
    async def turn(self, key: MarkKey, noted: Iterable[str]) -> AsyncIterator[None]:
        """Wait for a turn, and have it inside.

        Args:
            key: Whose first mark.
            noted: Chains that the store has, as read a moment ago.

        Raises:
            TooManyWait: Those of its key, or of all, wait on too many chains already.
        """
        self._noted.update(noted)
        chain = key.chain_id
        with self._in_line(key.pkh, chain, MAX_CHAINS_OF_KEY, f"first marks of {key.pkh}"):
            if chain not in self._noted:
                with self._in_line(_STORE, chain, MAX_NEW_CHAINS, "first marks"):
                    async with self._lock(chain):
                        if chain not in self._noted:
                            async with self._lock(_STORE):
                                yield
                            self._noted.add(chain)
                            return
            async with self._lock(key.pkh):
                yield

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    @contextmanager
    def _in_line(self, line: str, chain: str, limit: int, what: str) -> Iterator[None]:
        chains = self._waiting.setdefault(line, Counter())
        if chain not in chains and len(chains) >= limit:
            raise TooManyWait(f"{what} on {limit} chains wait already: send fewer at once, try again later")
        chains[chain] += 1
        try:
            yield
        finally:
            chains[chain] -= 1
            if not chains[chain]:
                del chains[chain]
            if not chains:
                del self._waiting[line]
