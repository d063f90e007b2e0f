"""Two stores as one: the keys that Signatory knows in the one that it reads, all others in one of their own.

Signatory stops at a key that it does not know, and would take all others out of service with it.
"""

import asyncio
from collections.abc import Mapping, Sequence

from enclave_signer.protocol.key_types import KeyType
from host_backend.keystore.base import Before, KeptKeys, KeyStore, StoredKey

#: How the hashes of keys begin that Signatory does not know.
_APART = tuple(key_type.facts.address for key_type in KeyType if key_type.facts.experimental)


class StoreApart:
    """A `KeyStore` of two.

    A change of several keys is all or none in each of the two, not in both together; those that are made together are of
    one type, and so in one.

    Args:
        shared: What Signatory reads, too.
        own: What only this host reads.
    """

    def __init__(self, shared: KeyStore, own: KeyStore) -> None:
        self._stores = (shared, own)
        self.look_s = max(shared.look_s, own.look_s)

    @property
    def damaged(self) -> Mapping[str, str]:
        """Entries that are not keys in either store; see `KeyStore.damaged`."""
        shared, own = (store.damaged for store in self._stores)
        return {**shared, **own}

    async def load(self) -> tuple[StoredKey, ...]:
        """Read every key, the shared ones first; see `KeyStore.load`."""
        shared, own = await asyncio.gather(*(store.load() for store in self._stores))
        return shared + own

    async def revision(self) -> str:
        """Return what changes with either store; see `KeyStore.revision`."""
        return " ".join([await store.revision() for store in self._stores])

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        """Store keys durably, each where it belongs; see `KeyStore.add`."""
        new: frozenset[str] = frozenset()
        for store in self._stores:
            if own := [key for key in keys if self._store_of(key.pkh) is store]:
                new |= await store.add(own)
        return new

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        """Store a key in place of others of its hash; see `KeyStore.replace`."""
        await self._store_of(key.pkh).replace(key, expected)

    async def keep(self, utc: str, before: Before) -> None:
        """Keep all keys aside in both stores; see `KeyStore.keep`."""
        for store in self._stores:
            await store.keep(utc, before)

    async def kept(self, before: Before) -> KeptKeys | None:
        """Return what was kept last in each store; see `KeyStore.kept`."""
        found = [kept for store in self._stores if (kept := await store.kept(before)) is not None]
        if not found:
            return None
        keys = tuple(key for kept in found for key in kept.keys)
        return KeptKeys(" and ".join(kept.where for kept in found), keys)

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        """Store other blobs; see `KeyStore.exchange`."""
        exchanged: frozenset[StoredKey] = frozenset()
        for store in self._stores:
            own = {key: blob for key, blob in blobs.items() if self._store_of(key.pkh) is store}
            exchanged |= await store.exchange(own)
        return exchanged

    async def aclose(self) -> None:
        """Let go of both stores."""
        for store in self._stores:
            await store.aclose()

    def _store_of(self, pkh: str) -> KeyStore:
        shared, own = self._stores
        return own if pkh.startswith(_APART) else shared
