"""A key store in memory."""

from host_backend.errors import StoreUnavailable
from host_backend.keystore.base import StoredKey


class MemoryKeys:
    """A key store that can be told to fail."""

    def __init__(self, *stored: StoredKey) -> None:
        self.stored = list(stored)
        self.failing = False

    async def load(self) -> tuple[StoredKey, ...]:
        self._check()
        return tuple(self.stored)

    async def revision(self) -> str:
        self._check()
        return str(hash(tuple(self.stored)))

    async def add(self, key: StoredKey) -> bool:
        self._check()
        if any(stored.pkh == key.pkh for stored in self.stored):
            return False
        self.stored.append(key)
        return True

    async def replace(self, key: StoredKey) -> None:
        self._check()
        self.stored = [key if stored.pkh == key.pkh else stored for stored in self.stored]

    def _check(self) -> None:
        if self.failing:
            raise StoreUnavailable("the disk is full")
