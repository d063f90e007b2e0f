"""The port behind which sealed keys are kept.

- A store keeps what it is given and nothing else: it opens no blob and checks no key against its hash.
- Keys are only ever added, or replaced on purpose, and then the old entry is kept aside. Stored entries stay as they are,
  and come back in the order in which they were added.
- Before keys are resealed, or a reseal is undone, all of them are kept aside at once, under the time of that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

#: Largest sealed key: the largest ciphertext that Cloud KMS takes back, and half a frame of the enclave's wire.
#: Real ones have hundreds of bytes.
MAX_BLOB_BYTES = 64 * 1024
#: Longest public-key hash, in characters; real ones have 36 or 37.
MAX_PKH_CHARS = 64


def is_pkh(text: str) -> bool:
    """Return whether a text can be a public-key hash, and leads nowhere else in a name."""
    return 0 < len(text) <= MAX_PKH_CHARS and text.isascii() and text.isalnum()


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A sealed key under its public-key hash, as stored: whether the two belong together is not known here."""

    pkh: str
    blob: bytes = field(repr=False)


class Before(StrEnum):
    """The change before which all keys were kept aside: the copies of each kind are a series of their own."""

    RESEAL = "reseal"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class KeptKeys:
    """Keys as they were before a reseal, or before it was undone.

    Attributes:
        where: The place, for people.
        keys: In stored order.
    """

    where: str
    keys: tuple[StoredKey, ...]


class KeyStore(Protocol):
    """Sealed keys by public-key hash."""

    @property
    def look_s(self) -> float:
        """Seconds between two looks whether something has changed: what one costs is the store's."""
        ...

    @property
    def damaged(self) -> Mapping[str, str]:
        """What `load` found last and left out, as it is no key: by its name, usually the key's hash, what to do about it."""
        ...

    async def load(self) -> tuple[StoredKey, ...]:
        """Read every key, in stored order.

        Returns:
            All entries; a store written by others may name one hash several times.

        Raises:
            ConfigError: The stored data is not well formed as a whole; the text names the place.
            StoreUnavailable: The store did not answer.
        """
        ...

    async def revision(self) -> str:
        """Return a text that is another one after every change, by any program; cheap enough to ask for every `look_s`.

        Raises:
            StoreUnavailable: The store did not answer.
        """
        ...

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        """Store keys durably, all or none of them.

        A caller that is cancelled meanwhile does not know whether they were stored.

        Args:
            keys: With different hashes of 1 to `MAX_PKH_CHARS` characters, and blobs of 1 to `MAX_BLOB_BYTES` bytes.

        Returns:
            The hashes that were new, once their keys are durable. Of one that was stored already, durably, nothing is
            changed.

        Raises:
            ConfigError: The stored data is not well formed, or there is no room by the store's own limits.
            StoreUnavailable: Not known to be stored; look at the storage, then try again.
        """
        ...

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        """Store a key durably in place of every entry of its hash, which are kept aside, durably, first.

        Args:
            key: As for `add`.
            expected: The blobs that it takes the place of, in stored order.

        Raises:
            ConfigError, StoreUnavailable: As for `add`; or other blobs are stored by now: then nothing is changed.
        """
        ...

    async def keep(self, utc: str, before: Before) -> None:
        """Keep all keys aside, durably, as they are stored now; nothing removes them but people.

        Args:
            utc: The time, as 20260131T235959Z, by which they are kept.
            before: What will change them.

        Raises:
            ConfigError: The stored data is not well formed.
            StoreUnavailable: Not known to be kept; or something is kept by that time already.
        """
        ...

    async def kept(self, before: Before) -> KeptKeys | None:
        """Return what `keep` kept aside last before such a change; None if nothing was, or people have removed it.

        Raises:
            ConfigError: What was kept is not well formed, or more than is ever read.
            StoreUnavailable: The store did not answer.
        """
        ...

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        """Store other blobs durably in the entries of keys that are still stored as given.

        The old ones are not kept aside: see `keep`. A crash meanwhile may leave any number of them exchanged.

        Args:
            blobs: The new ones, of 1 to `MAX_BLOB_BYTES` bytes, by what they take the place of.

        Returns:
            Those that were exchanged. All others were changed meanwhile, and are left as they are.

        Raises:
            ConfigError: The stored data is not well formed, or there is no room by the store's own limits.
            StoreUnavailable: Not known which were exchanged; load again.
        """
        ...

    async def aclose(self) -> None:
        """Release everything; no call comes after this."""
        ...
