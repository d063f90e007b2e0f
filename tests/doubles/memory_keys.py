"""A key store in memory."""

from collections.abc import Sequence

from host_backend.errors import StoreUnavailable
from host_backend.keystore.base import StoredKey


class MemoryKeys:
    """A key store that can be told to fail."""

    #: Long: who waits for a key asks for it.
    look_s = 600.0

    def __init__(self, *stored: StoredKey) -> None:
        self.stored = list(stored)
        self.failing = False

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

    async def aclose(self) -> None:
        pass

    def _check(self) -> None:
        if self.failing:
            raise StoreUnavailable("the disk is full")
