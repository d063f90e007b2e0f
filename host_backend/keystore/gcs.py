"""Sealed keys in a bucket of Cloud Storage: an object for each, under its hash.

- An object is made only where there is none, and replaced only while it is at the generation that was read: of all who
  try, one does it. A replaced blob is kept below `replaced/` first.
- Keys that are added together count from the moment when one more object says so, which is made once: a host that is killed
  before leaves objects that are no keys, and adding one of these keys later abandons the rest.
- Content that is read must have the checksum that the service names. An object that is no key is left out, and named; all others
  are read. An object that has not changed is not read again.
- After an answer that does not say whether something was done, it is read back before anything is said or tried again.
- Keys come back in the order in which they were first added, by the service's clock.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import TypeVar

from host_backend.errors import ConfigError, StateConflict, StoreUnavailable
from host_backend.google.objects import StoredObject
from host_backend.google.outcomes import Conflict, OutcomeUnknown
from host_backend.google.storage import Altered, Bucket
from host_backend.keystore import gcs_objects as objects
from host_backend.keystore.base import MAX_PKH_CHARS, Before, KeptKeys, StoredKey, is_pkh
from host_backend.keystore.gcs_decisions import Decisions, each
from host_backend.keystore.gcs_objects import Entry

#: Seconds between two looks: each is a list, which is billed.
LOOK_S = 10.0
#: Bytes of all blobs together, so that one copy can hold them: over ten thousand keys of usual size.
MAX_LOADED_BYTES = 4 * 1024 * 1024
#: Bytes of a copy: the library uploads more than that in several calls.
MAX_COPY_BYTES = 8 * 1024 * 1024
#: Objects that are no keys, of which it is said why.
MAX_NAMED = 100
#: Tries of one change, each with a read before: others who write the same keys can spoil some.
TRIES = 8
#: Reads of one object whose checksum is wrong: content damaged on the way comes whole the next time.
READS = 3
#: Seconds after which keys that were to be stored together, and are not, are named: no adding takes as long.
UNFINISHED_S = 3600.0
#: Longest pause before a change is tried again, in seconds; the first one is at most a 32nd of it.
_PAUSE_S = 4.0

T = TypeVar("T")


class BucketKeyStore:
    """A `KeyStore` that several hosts can share.

    Args:
        bucket: Where the objects are; closed with the store.
        look_s: Seconds between two looks.
    """

    def __init__(self, bucket: Bucket, look_s: float = LOOK_S) -> None:
        self._bucket = bucket
        self._place = bucket.place
        self._damaged: Mapping[str, str] = {}
        #: By name and generation, which never mean another blob.
        self._blobs: dict[tuple[str, int], bytes] = {}
        self._decisions = Decisions(bucket)
        self.look_s = look_s

    @property
    def damaged(self) -> Mapping[str, str]:
        """Objects that are no keys, a hundred at most; see `KeyStore.damaged`."""
        return self._damaged

    async def load(self) -> tuple[StoredKey, ...]:
        """Read every key; see `KeyStore.load`."""
        return await self._settled(self._load)

    async def _load(self) -> tuple[StoredKey, ...]:
        entries, damaged = await self._entries()
        if sum(entry.found.size for entry in entries) > MAX_LOADED_BYTES:
            raise StateConflict(f"{self._place} has more than {MAX_LOADED_BYTES} bytes of blobs: use a second vault")
        present = {(entry.found.name, entry.found.generation) for entry in entries}
        self._blobs = {version: blob for version, blob in self._blobs.items() if version in present}
        read: list[tuple[Entry, StoredKey]] = []
        for entry, blob in zip(entries, await each(entries, self._blob_or_problem), strict=True):
            if isinstance(blob, str):
                damaged[entry.pkh] = blob
            else:
                read.append((entry, StoredKey(entry.pkh, blob)))
        self._damaged = dict(list(damaged.items())[:MAX_NAMED])
        return tuple(key for _, key in sorted(read, key=lambda each: (each[0].added, each[0].place, each[1].pkh)))

    async def _entries(self) -> tuple[list[Entry], dict[str, str]]:
        """Return the stored keys, in the order of names, and the objects that are no keys, with the reason."""
        entries: list[Entry] = []
        damaged: dict[str, str] = {}
        listed = [each for each in await self._bucket.list(objects.KEYS) if each.name != objects.KEYS]
        waited_for = {change for each in listed if (change := objects.undecided_by_itself(each))}
        decisions = await self._decisions.find(sorted(waited_for))
        for found in listed:
            change = objects.undecided_by_itself(found)
            decision = decisions[change] if change else None
            problem = objects.problem_of(found)
            if change and decision is None:
                problem = _unfinished(found)
            elif problem is None and (decision is None or decision.stored):
                entries.append(objects.entry_of(found, decision))
            if problem is not None:
                damaged[_shown(found)] = f"{self._place}{objects.KEYS}{_shown(found)}: {problem}: restore or delete it"
        return entries, damaged

    async def revision(self) -> str:
        """Return what changes with every object; see `KeyStore.revision`."""
        entries, damaged = await self._entries()
        state = [(entry.found.name, entry.found.generation) for entry in entries]
        return blake2b(repr((state, sorted(damaged))).encode(), digest_size=16).hexdigest()

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        """Store keys durably; see `KeyStore.add`."""
        for key in keys:
            objects.check(key.pkh, key.blob)
        changes: set[str] = set()
        return await self._settled(partial(self._add, keys, changes)) if keys else frozenset()

    async def _add(self, keys: Sequence[StoredKey], changes: set[str]) -> frozenset[str]:
        there = dict(zip(keys, await each(keys, lambda key: self._look_for(key.pkh)), strict=True))
        mine = {key.pkh for key, (_, entry) in there.items() if entry and objects.change_of(entry.found) in changes}
        new = [(key, found) for key, (found, entry) in there.items() if entry is None]
        change = secrets.token_hex(8)
        changes.add(change)
        if len(new) == 1:
            ((key, found),) = new
            await self._bucket.write(
                objects.key_name(key.pkh), key.blob, {objects.CHANGE: change}, found.generation if found else 0
            )
        elif new:
            await self._add_together(new, change)
        return frozenset(mine | {key.pkh for key, _ in new})

    async def _add_together(self, new: Sequence[tuple[StoredKey, StoredObject | None]], change: str) -> None:
        metadata = {objects.CHANGE: change, objects.WITH_OTHERS: "yes"}

        async def write(one: tuple[int, tuple[StoredKey, StoredObject | None]]) -> None:
            place, (key, found) = one
            name, generation = objects.key_name(key.pkh), found.generation if found else 0
            await self._bucket.write(name, key.blob, {**metadata, objects.PLACE: str(place)}, generation)

        try:
            await each(list(enumerate(new)), write)
            if not (await self._decisions.decide(change, stored=True)).stored:
                raise Conflict(f"{self._place}: others are adding the same keys")
        except StoreUnavailable:
            with suppress(StoreUnavailable):
                await self._withdraw(change, [key.pkh for key, _ in new])
            raise

    async def _withdraw(self, change: str, pkhs: Sequence[str]) -> None:
        """Delete what was to be stored together, unless it is stored after all."""
        if (await self._decisions.decide(change, stored=False)).stored:
            return

        async def delete(pkh: str) -> None:
            found = await self._bucket.find(objects.key_name(pkh))
            if found is not None and objects.change_of(found) == change:
                await self._bucket.delete(found)

        await each(pkhs, delete)

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        """Store a key in place of the other of its hash; see `KeyStore.replace`."""
        objects.check(key.pkh, key.blob)
        await self._settled(partial(self._replace, key, expected, secrets.token_hex(8)))

    async def _replace(self, key: StoredKey, expected: Sequence[bytes], change: str) -> None:
        found, entry = await self._look_for(key.pkh)
        if entry and objects.change_of(entry.found) == change:
            return
        old = [] if entry is None else [await self._blob(entry)]
        if old != [*expected]:
            raise StoreUnavailable(f"the stored entry of {key.pkh} in {self._place} was changed meanwhile: try again")
        for blob in old:
            with suppress(Conflict):
                await self._bucket.write(objects.replaced_name(StoredKey(key.pkh, blob)), blob, {})
        await self._write_over(key.pkh, key.blob, found, entry, change)

    async def _write_over(
        self, pkh: str, blob: bytes, found: StoredObject | None, entry: Entry | None, change: str
    ) -> None:
        metadata = {objects.CHANGE: change}
        if entry is not None:
            metadata |= {objects.ADDED: entry.added, objects.PLACE: str(entry.place)}
        await self._bucket.write(objects.key_name(pkh), blob, metadata, found.generation if found else 0)

    async def keep(self, utc: str, before: Before) -> None:
        """Copy all keys to one object; see `KeyStore.keep`."""
        data = objects.encode_copy(await self.load())
        if len(data) > MAX_COPY_BYTES:
            raise StateConflict(f"{self._place}: a copy of all keys has more than {MAX_COPY_BYTES} bytes")
        await self._settled(partial(self._keep, f"{objects.copies_below(before)}{utc}", data, secrets.token_hex(8)))

    async def _keep(self, name: str, data: bytes, change: str) -> None:
        found = await self._bucket.find(name)
        if found is None:
            await self._bucket.write(name, data, {objects.CHANGE: change})
        elif objects.change_of(found) != change:
            raise StoreUnavailable(f"a copy of all keys, {self._place}{name}, is there already: try again")

    async def kept(self, before: Before) -> KeptKeys | None:
        """Read the newest copy; see `KeyStore.kept`."""
        return await self._settled(partial(self._kept, before))

    async def _kept(self, before: Before) -> KeptKeys | None:
        below = objects.copies_below(before)
        copies = [each for each in await self._bucket.list(below) if each.name != below]
        if not copies:
            return None
        # By the service's time: their names are by the clocks of several hosts.
        newest = max(copies, key=lambda each: (each.created, each.name))
        where = f"{self._place}{newest.name}"
        if newest.size > MAX_COPY_BYTES:
            raise ConfigError(f"{where} has more than {MAX_COPY_BYTES} bytes: it is no copy of keys")
        return KeptKeys(where, objects.decode_copy(where, await self._read(newest)))

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        """Store other blobs; see `KeyStore.exchange`."""
        for key, blob in blobs.items():
            objects.check(key.pkh, blob)
        change = secrets.token_hex(8)

        async def exchange(key: StoredKey) -> bool:
            return await self._settled(partial(self._exchange, key, blobs[key], change))

        keys = [*blobs]
        done = await each(keys, exchange)
        return frozenset(key for key, was_done in zip(keys, done, strict=True) if was_done)

    async def _exchange(self, key: StoredKey, blob: bytes, change: str) -> bool:
        if not is_pkh(key.pkh):
            return False
        found, entry = await self._look_for(key.pkh)
        if entry is not None and objects.change_of(entry.found) == change:
            return True
        if entry is None or await self._blob(entry) != key.blob:
            return False
        await self._write_over(key.pkh, blob, found, entry, change)
        return True

    async def aclose(self) -> None:
        """End all connections."""
        await self._bucket.aclose()

    async def _look_for(self, pkh: str) -> tuple[StoredObject | None, Entry | None]:
        """Return the object under a hash and the key that it is; what others have not finished is abandoned."""
        found = await self._bucket.find(objects.key_name(pkh))
        if found is None:
            return None, None
        change = objects.undecided_by_itself(found)
        decision = None if change is None else await self._decisions.decide(change, stored=False)
        if decision is not None and not decision.stored:
            return found, None
        return found, objects.entry_of(found, decision)

    async def _blob_or_problem(self, entry: Entry) -> bytes | str:
        try:
            return await self._blob(entry)
        except StateConflict as error:
            return str(error)

    async def _blob(self, entry: Entry) -> bytes:
        if (problem := objects.problem_of(entry.found)) is not None:
            raise StateConflict(f"{self._place}{entry.found.name}: {problem}: restore or delete it")
        version = entry.found.name, entry.found.generation
        if version not in self._blobs:
            self._blobs[version] = await self._read(entry.found)
        return self._blobs[version]

    async def _read(self, found: StoredObject) -> bytes:
        for _ in range(READS):
            try:
                return await self._bucket.read(found)
            except Altered as error:
                now, problem = await self._bucket.find(found.name), error
            # Emulators give another generation than the one that was asked for.
            if now is None or now.generation != found.generation:
                raise Conflict(f"{self._place}{found.name} was changed meanwhile")
        raise StateConflict(f"{problem}: restore an earlier version, or a backup") from problem

    async def _settled(self, once: Callable[[], Awaitable[T]]) -> T:
        """Do something that reads before it writes, again and again until it is known what came of it."""
        for number in range(TRIES):
            try:
                return await once()
            except Conflict as error:
                # Nothing was done: the next attempt reads the changes of others.
                problem = str(error)
            except OutcomeUnknown as error:
                problem = str(error)
            # Of several who are in each other's way, each waits for another time.
            await asyncio.sleep(min(_PAUSE_S, _PAUSE_S / 32 * 2**number) * random.uniform(0.5, 1))  # noqa: S311
        raise StoreUnavailable(f"{problem}; {TRIES} attempts: look at it, then try again")


def _unfinished(found: StoredObject) -> str | None:
    """Return the problem of a key that was to be stored with others, and is not; None while it can be under way."""
    with suppress(ValueError):
        if datetime.now(UTC) - datetime.fromisoformat(found.created) < timedelta(seconds=UNFINISHED_S):
            return None
    return f"a command that was to store it with others was cut short, or {objects.TOGETHER} is not what it was"


def _shown(found: StoredObject) -> str:
    """Return the name of an object below `keys/`, whatever it has in it, for people."""
    return found.name.removeprefix(objects.KEYS)[:MAX_PKH_CHARS].encode("unicode_escape").decode()
