"""Sealed keys in Signatory's collection of Firestore.

- A document for each key, under its hash, with `pkh` (text) and `value` (the blob); its other fields are left alone. They
  come back in the order in which they were made; those that were added together, by hash.
- A document that is no key is left out, and named; all others are read.
- A key is added only where its document is absent, together with all others or not at all; replaced only while its
  document is at the version that was read. A replaced document goes to `<collection>_replaced`, in the same commit.
- After an answer that does not say whether something was done, it is read back before anything is said or tried again.
- The number of documents shows whether there is something new, which costs one read. All of them are read when it
  has changed, every ten minutes, and when the host asks for it: a replaced blob does not change the number.

Source: Signatory `pkg/vault/confidentialspace`, storage `gcp`.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from operator import itemgetter
from typing import TypeVar

from host_backend.errors import ConfigError, StateConflict, StoreUnavailable
from host_backend.google.documents import Document, Write
from host_backend.google.firestore import MAX_COMMIT_BYTES, Firestore
from host_backend.google.outcomes import Conflict, Contended, OutcomeUnknown
from host_backend.keystore.base import MAX_BLOB_BYTES, MAX_PKH_CHARS, Before, KeptKeys, StoredKey, is_pkh

#: Seconds between two looks at the number of documents: what one costs is billed.
LOOK_S = 5.0
#: Seconds after which all documents are read, whether their number has changed or not.
READ_ALL_S = 600.0
#: Bytes of all blobs together: a hundred thousand keys of usual size.
MAX_LOADED_BYTES = 64 * 1024 * 1024
#: Documents that are no keys, of which it is said why.
MAX_NAMED = 100
#: Tries of one change, each with a read before: others who write the same keys can spoil some.
TRIES = 8
#: Bytes that a document has beside its blob, its long name twice: more than it can be.
_MORE_BYTES = 4096
#: Longest pause before a change is tried again, in seconds; the first one is a 32nd of it.
_PAUSE_S = 2.0
#: Documents of all copies together that are looked at for the newest one: some tens of copies of ten thousand keys.
MAX_KEPT = 300_000
#: The fields read from a document: others may keep more there.
_FIELDS = ("pkh", "value")
#: Keys that are written together.
_BATCH = 64

T = TypeVar("T")


class FirestoreKeyStore:
    """A `KeyStore` that several hosts, and Signatory beside them, can share.

    Args:
        database: Where the collection is; closed with the store.
        look_s: Seconds between two looks.
    """

    def __init__(self, database: Firestore, look_s: float = LOOK_S) -> None:
        self._database = database
        self._place = database.place
        self._opened_at = asyncio.get_running_loop().time()
        self._damaged: Mapping[str, str] = {}
        self.look_s = look_s

    @property
    def damaged(self) -> Mapping[str, str]:
        """Documents that are no keys, a hundred at most; see `KeyStore.damaged`."""
        return self._damaged

    async def load(self) -> tuple[StoredKey, ...]:
        """Read every key; see `KeyStore.load`."""
        found: list[tuple[str, StoredKey]] = []
        damaged: dict[str, str] = {}
        size = 0
        async for document in self._database.list(self._place.collection, _FIELDS):
            # One that is not there itself has others below it: not ours.
            if document.created:
                try:
                    key = self._stored_key(document)
                except ConfigError as error:
                    if len(damaged) < MAX_NAMED:
                        damaged[document.id[:MAX_PKH_CHARS]] = f"{error}: correct it or delete it"
                    continue
                found.append((document.created, key))
                size += len(key.blob)
            if size > MAX_LOADED_BYTES:
                raise StateConflict(
                    f"{self._place} has more than {MAX_LOADED_BYTES} bytes of blobs: use a second vault"
                )
        self._damaged = damaged
        return tuple(key for _, key in sorted(found, key=lambda each: (each[0], each[1].pkh)))

    async def revision(self) -> str:
        """Return what changes with the number of keys, and every ten minutes; see `KeyStore.revision`."""
        age_s = asyncio.get_running_loop().time() - self._opened_at
        return f"{await self._database.count(self._place.collection)} {int(age_s // READ_ALL_S)}"

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        """Store keys durably; see `KeyStore.add`."""
        for key in keys:
            _check(f"key {key.pkh[:MAX_PKH_CHARS]!r}", key.pkh, key.blob)
        if sum(len(key.blob) + _MORE_BYTES for key in keys) > MAX_COMMIT_BYTES:
            raise StateConflict(
                f"{self._place} takes at most {MAX_COMMIT_BYTES} bytes at once: add fewer keys together"
            )
        perhaps_written: set[str] = set()

        async def once() -> frozenset[str]:
            there = await self._read([key.pkh for key in keys])
            mine = {key.pkh for key in keys if key.pkh in perhaps_written and there[key.pkh] == key.blob}
            new = [key for key in keys if there[key.pkh] is None]
            try:
                if new:
                    await self._database.commit(Write(self._path(key.pkh), _fields(key), absent=True) for key in new)
            except OutcomeUnknown:
                perhaps_written.update(key.pkh for key in new)
                raise
            return frozenset(mine | {key.pkh for key in new})

        return await self._settled(once) if keys else frozenset()

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        """Store a key in place of the other of its hash; see `KeyStore.replace`."""
        _check(f"key {key.pkh[:MAX_PKH_CHARS]!r}", key.pkh, key.blob)
        path, perhaps_written = self._path(key.pkh), False

        async def once() -> None:
            nonlocal perhaps_written
            document = (await self._database.get([path]))[path]
            blob = None if document is None else self._stored_key(document).blob
            if perhaps_written and blob == key.blob:
                return
            if ([] if blob is None else [blob]) != [*expected]:
                raise StoreUnavailable(
                    f"the stored entry of {key.pkh} in {self._place} was changed meanwhile: try again"
                )
            try:
                await self._database.commit(self._replacing(key, document, blob))
            except OutcomeUnknown:
                perhaps_written = True
                raise

        await self._settled(once)

    def _replacing(self, key: StoredKey, document: Document | None, blob: bytes | None) -> Iterator[Write]:
        path = self._path(key.pkh)
        if document is None or blob is None:
            yield Write(path, _fields(key), absent=True)
            return
        # The same name for the same blob: a blob set aside twice stands there once.
        aside = f"{self._place.collection}_replaced/{key.pkh}-{blake2b(blob, digest_size=8).hexdigest()}"
        yield Write(aside, _fields(StoredKey(key.pkh, blob)))
        yield Write(path, _fields(key), version=document.version)

    async def keep(self, utc: str, before: Before) -> None:
        """Copy all documents to `<collection>_before_reseal` or `_before_undo`; see `KeyStore.keep`."""
        keys = await self.load()
        # Two runs of the same second have copies of their own, and one of them is the first to be whole.
        aside, run = self._aside(before), secrets.token_hex(8)
        for start in range(0, len(keys), _BATCH):
            batch = enumerate(keys[start : start + _BATCH], start)
            copies = [Write(f"{aside}/{run}-{key.pkh}", {**_fields(key), "run": run, "place": at}) for at, key in batch]
            await self._settled(partial(self._database.commit, copies))
        # Last: a copy that was not finished is none.
        await self._settled(partial(self._finish_copy, f"{aside}/{utc}", run))

    async def _finish_copy(self, path: str, run: str) -> None:
        found = (await self._database.get([path]))[path]
        if found is not None and found.fields.get("whole") != run:
            raise StoreUnavailable(f"a copy of all keys, {path}, is there already: try again")
        if found is None:
            await self._database.commit([Write(path, {"whole": run}, absent=True)])

    async def kept(self, before: Before) -> KeptKeys | None:
        """Read the newest copy that is whole; see `KeyStore.kept`."""
        aside = self._aside(before)
        names: defaultdict[object, list[str]] = defaultdict(list)
        whole: list[tuple[str, str, object]] = []
        seen = 0
        # Without the blobs: copies that are not the newest one may have any number of them.
        async for document in self._database.list(aside, ("whole",)):
            seen += 1
            if seen > MAX_KEPT:
                raise ConfigError(f"{aside} of {self._place} has more than {MAX_KEPT} documents: remove old copies")
            if "whole" in document.fields:
                whole.append((document.created, document.id, document.fields["whole"]))
            else:
                names[document.id.partition("-")[0]].append(document.path)
        if not whole:
            return None
        # By the service's time: their names are by the clocks of several hosts.
        _, newest, run = max(whole, key=itemgetter(0))
        return KeptKeys(f"{aside}, {newest}", await self._copied(names[run]))

    async def _copied(self, paths: Sequence[str]) -> tuple[StoredKey, ...]:
        copied: list[tuple[int, StoredKey]] = []
        size = 0
        for start in range(0, len(paths), _BATCH):
            for document in (await self._database.get(paths[start : start + _BATCH])).values():
                if document is not None and isinstance(place := document.fields.get("place"), int):
                    copied.append((place, key := self._key_of(document)))
                    size += len(key.blob)
            if size > MAX_LOADED_BYTES:
                raise ConfigError(f"a copy of {self._place} has more than {MAX_LOADED_BYTES} bytes of blobs")
        return tuple(key for _, key in sorted(copied, key=itemgetter(0)))

    def _aside(self, before: Before) -> str:
        return f"{self._place.collection}_before_{before}"

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        """Store other blobs; see `KeyStore.exchange`."""
        for key, blob in blobs.items():
            _check(f"key {key.pkh[:MAX_PKH_CHARS]!r}", key.pkh, blob)
        exchanged: set[StoredKey] = set()
        keys = [*blobs]
        for start in range(0, len(keys), _BATCH):
            exchanged |= await self._exchange({key: blobs[key] for key in keys[start : start + _BATCH]})
        return frozenset(exchanged)

    async def _exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        perhaps_written: set[StoredKey] = set()

        async def once() -> frozenset[StoredKey]:
            found = await self._database.get([self._path(key.pkh) for key in blobs])
            there = {key: found[self._path(key.pkh)] for key in blobs}
            as_given = {key: document for key, document in there.items() if self._has(document, key.blob)}
            mine = {key for key in perhaps_written - as_given.keys() if self._has(there[key], blobs[key])}
            writes = [
                Write(document.path, {"value": blobs[key]}, version=document.version)
                for key, document in as_given.items()
                if document is not None
            ]
            try:
                if writes:
                    await self._database.commit(writes)
            except OutcomeUnknown:
                perhaps_written.update(as_given)
                raise
            return frozenset(mine | as_given.keys())

        return await self._settled(once)

    def _has(self, document: Document | None, blob: bytes) -> bool:
        return document is not None and self._stored_key(document).blob == blob

    async def aclose(self) -> None:
        """End the connection."""
        await self._database.aclose()

    async def _settled(self, once: Callable[[], Awaitable[T]]) -> T:
        """Do something that reads before it writes, again and again until it is known what came of it."""
        for number in range(TRIES):
            try:
                return await once()
            except (Contended, Conflict):
                # Nothing was done: the next attempt reads the changes of others.
                problem = "others are changing the same keys"
            except OutcomeUnknown as error:
                problem = str(error)
            await asyncio.sleep(min(_PAUSE_S, _PAUSE_S / 32 * 2**number))
        raise StoreUnavailable(f"{self._place}: not known to be stored: {problem}; look at it, then try again")

    async def _read(self, pkhs: Sequence[str]) -> dict[str, bytes | None]:
        found = await self._database.get([self._path(pkh) for pkh in pkhs])
        return {
            pkh: None if (document := found[self._path(pkh)]) is None else self._stored_key(document).blob
            for pkh in pkhs
        }

    def _path(self, pkh: str) -> str:
        return f"{self._place.collection}/{pkh}"

    def _stored_key(self, document: Document) -> StoredKey:
        key = self._key_of(document)
        if key.pkh != document.id:
            raise StateConflict(f"{self._place}, document {document.id}: pkh must be the document's own id")
        return key

    def _key_of(self, document: Document) -> StoredKey:
        where = f"{self._place}, document {document.id}"
        pkh, blob = document.fields.get("pkh"), document.fields.get("value")
        if not isinstance(pkh, str):
            raise StateConflict(f"{where}: pkh must be a text")
        if not isinstance(blob, bytes):
            raise StateConflict(f"{where}: value must be bytes")
        _check(where, pkh, blob)
        return StoredKey(pkh, blob)


def _check(where: str, pkh: str, blob: bytes) -> None:
    if not is_pkh(pkh):
        raise StateConflict(f"{where}: pkh must have 1 to {MAX_PKH_CHARS} letters and digits")
    if not 0 < len(blob) <= MAX_BLOB_BYTES:
        raise StateConflict(f"{where}: value must have 1 to {MAX_BLOB_BYTES} bytes")


def _fields(key: StoredKey) -> dict[str, str | bytes]:
    return {"pkh": key.pkh, "value": key.blob}
