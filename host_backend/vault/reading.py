"""The stored keys of a vault, read when they have changed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TypeVar

from host_backend.errors import ConfigError
from host_backend.keystore.base import KeyStore
from host_backend.log import fields

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Keys that are dealt with, without asking anybody, before everything else has its turn: under a millisecond.
KEYS_PER_TURN = 1000


class StoreReader:
    """Reads the store of one vault.

    Attributes:
        damaged: Stored entries that are not keys, by name, each with its fix.

    Args:
        vault: Its name, for the log.
        store: The store to read.
    """

    def __init__(self, vault: str, store: KeyStore) -> None:
        self._vault = vault
        self._store = store
        self._revision: str | None = None
        #: The fault of the store as a whole, at this revision.
        self._malformed: str | None = None
        self.damaged: Mapping[str, str] = {}

    def forget_revision(self) -> None:
        """Have the whole store read next time, even if it says that nothing has changed."""
        self._revision = None

    async def read(self) -> Mapping[str, tuple[bytes, ...]] | None:
        """Return all blobs by the hash of their key; None when nothing has changed since.

        Raises:
            ConfigError, StoreUnavailable: It cannot be read.
        """
        revision = await self._store.revision()
        if revision == self._revision:
            if self._malformed is not None:
                raise ConfigError(self._malformed)
            return None
        try:
            stored = await self._store.load()
        except ConfigError as error:
            # It stays so until something changes: reading all of it at every look would cost, and find nothing else.
            self._revision, self._malformed = revision, str(error)
            raise
        blobs: dict[str, tuple[bytes, ...]] = {}
        async for key in with_pauses(stored):
            # A store may hold a key twice, as Signatory's import does: one good blob is enough.
            blobs[key.pkh] = (*blobs.get(key.pkh, ()), key.blob)
        self._note_damaged(self._store.damaged)
        self._revision, self._malformed = revision, None
        return blobs

    def _note_damaged(self, damaged: Mapping[str, str]) -> None:
        for name, reason in damaged.items():
            if self.damaged.get(name) != reason:
                logger.error("no key: %s", reason, extra=fields(vault=self._vault))
        self.damaged = damaged


async def with_pauses(items: Iterable[T]) -> AsyncIterator[T]:
    """Give many items, and let everything else go on in between: no signature may wait for them."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % KEYS_PER_TURN == 0:
            await asyncio.sleep(0)
