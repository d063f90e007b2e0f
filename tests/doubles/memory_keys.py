"""A key store in memory."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from host_backend.errors import StoreUnavailable
from host_backend.keystore.base import Before, KeptKeys, StoredKey


class MemoryKeys:
    """A key store that fails on request."""

    #: Long: who waits for a key asks for it.
    look_s = 600.0

    def __init__(self, *stored: StoredKey) -> None:
        self.stored = list(stored)
        self.failing = False
        self.copies: dict[tuple[Before, str], tuple[StoredKey, ...]] = {}

    damaged: Mapping[str, str] = MappingProxyType({})

    async def load(self) -> tuple[StoredKey, ...]:
        self._check()
        return tuple(self.stored)

    async def revision(self) -> str:
        self._check()
        return str(hash(tuple(self.stored)))

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        self._check()
        there = {stored.pkh for stored in self.stored}
        new = [key for key in keys if key.pkh not in there]
        self.stored += new
        return frozenset(key.pkh for key in new)

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        self._check()
        if [stored.blob for stored in self.stored if stored.pkh == key.pkh] != [*expected]:
            raise StoreUnavailable("changed meanwhile")
        self.stored = [key if stored.pkh == key.pkh else stored for stored in self.stored]

    async def keep(self, utc: str, before: Before) -> None:
        self._check()
        if (before, utc) in self.copies:
            raise StoreUnavailable("there already: try again")
        self.copies[before, utc] = tuple(self.stored)

    async def kept(self, before: Before) -> KeptKeys | None:
        self._check()
        newest = max((name for name in self.copies if name[0] is before), default=None)
        return None if newest is None else KeptKeys("memory", self.copies[newest])

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        self._check()
        exchanged = frozenset(blobs) & frozenset(self.stored)
        self.stored = [StoredKey(each.pkh, blobs.get(each, each.blob)) for each in self.stored]
        return exchanged

    async def aclose(self) -> None:
        pass

    def _check(self) -> None:
        if self.failing:
            raise StoreUnavailable("the disk is full")
