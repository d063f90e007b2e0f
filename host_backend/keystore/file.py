"""Sealed keys in Signatory's key file.

- A JSON array, indented by 4 spaces, without final newline, mode 0600; an absent or empty file means no keys.
- Each entry has `public_key_hash` and `encrypted_private_key` (base64). Other members, repeated hashes and the order
  are kept when the file is rewritten: nothing that someone stored is lost.
- A file that is not well formed is refused whole, naming the entry: a file half understood would be rewritten by halves.
- Entries that are replaced go to `<file>.replaced`, a key file, too, before the new one takes their place.
- Before keys are sealed again, the whole file is copied to `<file>.before-reseal-<UTC>`; before that is undone, to
  `<file>.before-undo-<UTC>`.
- Adding locks `<file>.lock`, reads again, and replaces the file durably. Signatory takes no lock: never let it add
  keys to the same file at the same time.
- Symbolic links are followed first: all of these lie where the keys are, by any path.

Source: Signatory `pkg/vault/confidentialspace`, storage `file`.
"""

import asyncio
import base64
import binascii
import errno
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from host_backend import strict_json
from host_backend.bounded_file import read_bounded
from host_backend.durable import LockHeld, create_folder, fsync_directory, locked, real_path, write_durably
from host_backend.errors import StateConflict, StoreUnavailable, reason_of
from host_backend.keystore.base import MAX_BLOB_BYTES, MAX_PKH_CHARS, Before, KeptKeys, StoredKey

#: Largest key file: over ten thousand keys of usual size, read in a fraction of a second.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: How long adding waits by default: far more than one rewriting takes.
LOCK_WAIT_S = 10.0

#: Between two looks at the file: one is one call of the system.
LOOK_S = 1.0

_UTC = re.compile(r"\d{8}T\d{6}Z")

T = TypeVar("T")
#: An entry as read, with the members we do not know.
_Entry = dict[str, object]


class FileKeyStore:
    """A `KeyStore` in one file, shared with other processes of ours and readable by Signatory.

    Args:
        path: The key file. It and its folder are made (0600, 0700) when the first key is added.
        lock_wait_s: How long adding waits for another process that is adding.
    """

    def __init__(self, path: Path, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._path = path
        self.look_s = LOOK_S
        self._lock_wait_s = lock_wait_s

    @property
    def damaged(self) -> Mapping[str, str]:
        """Nothing: a file that is not well formed is not read at all; see `KeyStore.damaged`."""
        return {}

    async def load(self) -> tuple[StoredKey, ...]:
        """Read every key; see `KeyStore.load`."""
        return await asyncio.to_thread(self._load)

    async def revision(self) -> str:
        """Return what changes with the file; see `KeyStore.revision`."""
        return await asyncio.to_thread(self._revision)

    async def add(self, keys: Sequence[StoredKey]) -> frozenset[str]:
        """Store keys durably; see `KeyStore.add`."""
        return await asyncio.to_thread(self._locked, lambda path: self._append(path, keys), _named(keys))

    async def replace(self, key: StoredKey, expected: Sequence[bytes]) -> None:
        """Store a key in place of others of its hash; see `KeyStore.replace`."""
        await asyncio.to_thread(self._locked, lambda path: self._replace(path, key, expected), _named([key]))

    async def keep(self, utc: str, before: Before) -> None:
        """Copy the file; see `KeyStore.keep`."""
        await asyncio.to_thread(
            self._locked, lambda path: self._keep(path, _copy(path, before, utc)), "a copy of all keys is"
        )

    async def kept(self, before: Before) -> KeptKeys | None:
        """Read the newest copy; see `KeyStore.kept`."""
        newest = await asyncio.to_thread(self._newest_copy, before)
        return None if newest is None else KeptKeys(str(newest), await FileKeyStore(newest).load())

    async def exchange(self, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        """Store other blobs; see `KeyStore.exchange`."""
        if not blobs:
            return frozenset()
        named = _named([*blobs])
        return await asyncio.to_thread(self._locked, lambda path: self._exchange(path, blobs), named)

    async def aclose(self) -> None:
        """Nothing is held between two calls."""

    def _revision(self) -> str:
        try:
            file = self._path.stat()
        except FileNotFoundError:
            return "absent"
        except OSError as error:
            raise StoreUnavailable(f"key file {self._path} cannot be read: {reason_of(error)}") from error
        # It is replaced whole: a new one has a number of its own, whatever the clock says.
        return f"{file.st_dev}:{file.st_ino}:{file.st_size}:{file.st_mtime_ns}:{file.st_ctime_ns}"

    def _load(self) -> tuple[StoredKey, ...]:
        try:
            return self._parse(self._read(self._path))
        except OSError as error:
            raise StoreUnavailable(f"key file {self._path} cannot be read: {reason_of(error)}") from error

    def _newest_copy(self, before: Before) -> Path | None:
        try:
            path = real_path(self._path)
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            copies = (each for each in beside if each.name.startswith(_copy(path, before).name))
            return max((each for each in copies if _UTC.fullmatch(each.name.rpartition("-")[2])), default=None)
        except OSError as error:
            raise StoreUnavailable(f"the folder of key file {self._path} cannot be read: {reason_of(error)}") from error

    def _locked(self, change: Callable[[Path], T], what: str) -> T:
        try:
            create_folder(self._path.parent)
            path = real_path(self._path)
            with locked(path.with_name(path.name + ".lock"), wait_s=self._lock_wait_s):
                return change(path)
        except (OSError, LockHeld) as error:
            raise StoreUnavailable(f"{what} not stored in {self._path}: {_obstacle(error)}") from error

    def _append(self, path: Path, keys: Sequence[StoredKey]) -> frozenset[str]:
        entries = self._read(path)
        there = {stored.pkh for stored in self._parse(entries)}
        new = [key for key in keys if key.pkh not in there]
        if new:
            added = [self._entry(index, key) for index, key in enumerate(new, len(entries))]
            self._write(path, [*entries, *added], new[-1].pkh)
        else:
            # The process that stored them may have died before this step.
            fsync_directory(path.parent)
        return frozenset(key.pkh for key in new)

    def _replace(self, path: Path, key: StoredKey, expected: Sequence[bytes]) -> None:
        entries = self._read(path)
        stored = self._parse(entries)
        places = [index for index, each in enumerate(stored) if each.pkh == key.pkh]
        if [stored[index].blob for index in places] != [*expected]:
            raise StoreUnavailable(f"the stored entry of {key.pkh} in {self._path} was changed meanwhile: try again")
        old = [entries[index] for index in places]
        if old:
            replaced = path.with_name(path.name + ".replaced")
            self._write(replaced, [*self._read(replaced), *old], key.pkh)
        place = places[0] if places else len(entries)
        kept = [entry for index, entry in enumerate(entries) if index not in places]
        self._write(path, [*kept[:place], self._entry(place, key), *kept[place:]], key.pkh)

    def _keep(self, path: Path, copy: Path) -> None:
        entries = self._read(path)
        self._parse(entries)
        if copy.exists():
            raise StoreUnavailable(f"{copy} is there already: try again")
        self._write(copy, entries, "all keys")

    def _exchange(self, path: Path, blobs: Mapping[StoredKey, bytes]) -> frozenset[StoredKey]:
        entries = self._read(path)
        stored = self._parse(entries)
        for index, key in enumerate(stored):
            if key in blobs:
                new = self._entry(index, StoredKey(key.pkh, blobs[key]))
                entries[index] = {**cast("_Entry", entries[index]), **new}
        exchanged = blobs.keys() & {*stored}
        if exchanged:
            self._write(path, entries, next(iter(exchanged)).pkh)
        return frozenset(exchanged)

    def _entry(self, index: int, key: StoredKey) -> _Entry:
        entry: _Entry = {
            "public_key_hash": key.pkh,
            "encrypted_private_key": base64.b64encode(key.blob).decode(),
        }
        self._stored_key(index, entry)
        return entry

    def _write(self, path: Path, entries: list[object], pkh: str) -> None:
        data = json.dumps(entries, indent=4).encode()
        if len(data) > MAX_FILE_BYTES:
            raise StateConflict(f"key file {path} would exceed {MAX_FILE_BYTES} bytes with {pkh}: use a second vault")
        write_durably(path, data)

    def _read(self, path: Path) -> list[object]:
        """The entries, of any type.

        Raises:
            ConfigError: Too large, or not a JSON array.
            OSError: The file exists and cannot be read.
        """
        try:
            data = read_bounded(path, MAX_FILE_BYTES, regular=True)
        except FileNotFoundError:
            return []
        if data is None:
            raise StateConflict(f"key file {path} has more than {MAX_FILE_BYTES} bytes: is it a key file?")
        if not data.strip():
            return []
        try:
            entries = strict_json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise StateConflict(f"key file {path} is not JSON: {error}") from error
        if not isinstance(entries, list):
            raise StateConflict(f"key file {path} is not a JSON array of keys")
        return entries

    def _parse(self, entries: list[object]) -> tuple[StoredKey, ...]:
        return tuple(self._stored_key(index, entry) for index, entry in enumerate(entries))

    def _stored_key(self, index: int, entry: object) -> StoredKey:
        where = f"key file {self._path}, entry {index} (counted from 0)"
        if not isinstance(entry, dict):
            raise StateConflict(f"{where}: not an object")
        pkh = _text(where, entry, "public_key_hash")
        if not 0 < len(pkh) <= MAX_PKH_CHARS:
            raise StateConflict(f"{where}: public_key_hash must have 1 to {MAX_PKH_CHARS} characters")
        try:
            blob = base64.b64decode(_text(where, entry, "encrypted_private_key"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise StateConflict(f"{where}: encrypted_private_key is not base64") from error
        if not 0 < len(blob) <= MAX_BLOB_BYTES:
            raise StateConflict(f"{where}: encrypted_private_key must have 1 to {MAX_BLOB_BYTES} bytes")
        return StoredKey(pkh, blob)


def _obstacle(error: OSError | LockHeld) -> str:
    if isinstance(error, LockHeld):
        return str(error)
    if error.errno == errno.EBUSY:
        return "it is mounted as a single file, which cannot be replaced: mount its folder"
    return reason_of(error)


def _copy(path: Path, before: Before, utc: str = "") -> Path:
    return path.with_name(f"{path.name}.before-{before}-{utc}")


def _named(keys: Sequence[StoredKey]) -> str:
    return f"key {keys[0].pkh} is" if len(keys) == 1 else f"{len(keys)} keys from {keys[0].pkh} to {keys[-1].pkh} are"


def _text(where: str, entry: _Entry, member: str) -> str:
    value = entry.get(member)
    if not isinstance(value, str):
        raise StateConflict(f"{where}: {member} must be a text")
    return value
