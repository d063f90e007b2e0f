"""What a folder remembers of marks in Firestore: which store it has accepted, and that the marks are not here.

- A wrong project, database or collection is an empty store, or somebody else's. So a host starts on none but the store
  that its folder remembers; which one that is, is accepted once, by name.
- While the marks are in Firestore the folder holds the file that keeps Signatory, and other drivers, from starting here.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host_backend import strict_json
from host_backend.config.storage import FirestorePlace
from host_backend.durable import Claim, fsync_directory, write_durably
from host_backend.errors import ConfigError, StoreUnavailable, reason_of
from host_backend.watermark.file.old_sqlite import file_store_in
from host_backend.watermark.file.place import REBUILD, held_folder, reporting, store_path
from host_backend.watermark.firestore.layout import LAYOUT, DamagedMark, StoreDocument
from host_backend.watermark.rule import MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder

#: Where the accepted store is remembered, in the host's folder.
REMEMBERED_NAME = "watermark.firestore.json"
#: It has some 200 bytes.
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Remembered:
    """The store that a folder has accepted, and where it was then."""

    store_id: str
    place: FirestorePlace


class MarksFolder:
    """The folder of a host whose marks are in Firestore.

    Args:
        base_dir: The folder.
        place: Where the configuration has its marks.
    """

    def __init__(self, base_dir: Path, place: FirestorePlace) -> None:
        self._base_dir = base_dir
        self._place = place
        self._file = base_dir / REMEMBERED_NAME
        #: Signatory's files there.
        self.signatory = SignatoryFolder(base_dir)

    @contextmanager
    def held(self, *, whatever_was_signed: bool = False) -> Iterator[Claim]:
        """Keep other processes out of the folder; yields what to call before anything is written there.

        Args:
            whatever_was_signed: Whether it may be that a host kept marks in memory since.

        Raises:
            ConfigError: It is no folder, another process has it, or it has the marks of another driver.
            StoreUnavailable: It cannot be read.
        """
        with held_folder(self._base_dir) as claim:
            self.require_no_other(whatever_was_signed=whatever_was_signed)
            yield claim

    def require_no_other(self, *, whatever_was_signed: bool = False) -> None:
        """Pass unless the folder has marks that a store in Firestore does not know.

        Raises:
            ConfigError: It has those of another driver, or a host kept marks in memory since.
        """
        with reporting(store_path(self._base_dir)):
            found = file_store_in(self._base_dir)
        if found is not None:
            raise ConfigError(
                f"{found} has marks, and watermark.driver is gcp: bring them to {self._place} with `enclave-host watermark "
                "migrate`"
            )
        if self.signatory.forgotten and not whatever_was_signed:
            raise ConfigError(
                "the last host here had `watermark.driver: mem`, so what it signed is not known: make the marks anew with "
                f"{REBUILD}"
            )

    def remember(self, store_id: str) -> None:
        """Accept a store durably, in place of any other."""
        place = self._place
        told = {
            "store": store_id,
            "project": place.project,
            "database": place.database,
            "collection": place.collection,
            # For `watermark migrate` to another driver, whose configuration has no place for it.
            "application_credentials": None if place.credentials_file is None else str(place.credentials_file),
        }
        try:
            write_durably(self._file, json.dumps(told, indent=4).encode())
        except OSError as error:
            raise StoreUnavailable(f"{self._file} cannot be written: {reason_of(error)}") from error

    def forget(self) -> None:
        """Accept no store any more, durably."""
        try:
            self._file.unlink(missing_ok=True)
            fsync_directory(self._base_dir)
        except OSError as error:
            raise StoreUnavailable(f"{self._file} cannot be removed: {reason_of(error)}") from error

    def require_accepted(self, store: StoreDocument | None) -> str:
        """Return the id of the store in Firestore, which is the one that was accepted here.

        Raises:
            ConfigError: There is none, it is another one, or it cannot be used; the text says what to do.
        """
        remembered = remembered_store(self._base_dir)
        if store is None:
            raise ConfigError(missing_text(self._place, remembered))
        if not store.usable:
            raise ConfigError(unusable_text(self._place, store))
        if remembered is None or remembered.store_id != store.store_id:
            had = "none was accepted here" if remembered is None else f"this host had another one ({remembered.place})"
            raise ConfigError(
                f"the watermark store in {self._place} is {store.store_id}, and {had}: if it has the marks of these keys, accept "
                f"it with `enclave-host serve --accept-store {store.store_id}`; to bring marks there, `enclave-host watermark "
                "migrate`"
            )
        return store.store_id


def remembered_store(base_dir: Path) -> Remembered | None:
    """Return the store that a folder has accepted; None when it has none.

    Raises:
        ConfigError: The file is not ours.
        StoreUnavailable: It cannot be read.
    """
    file = base_dir / REMEMBERED_NAME
    try:
        with file.open("rb") as opened:
            told: object = strict_json.loads(opened.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError):
        told = None
    match told:
        case {
            "store": str(store_id),
            "project": str(project),
            "database": str(database),
            "collection": str(collection),
            "application_credentials": None | str() as credentials,
        }:
            path = None if credentials is None else Path(credentials)
            return Remembered(store_id, FirestorePlace(project, database, collection, path))
    raise ConfigError(
        f"{file} is not what this host wrote there: accept the store again (`enclave-host serve --accept-store`)"
    )


def missing_text(place: FirestorePlace, remembered: Remembered | None = None) -> str:
    """Return what to do where there is no store."""
    way = (
        f"; this host had one in {remembered.place}"
        if remembered
        else "; if its keys have never signed, or Signatory's marks are there, make one with `enclave-host watermark init`"
    )
    return (
        f"no watermark store in {place}: see that project, database and collection are right{way}; or make the marks anew "
        f"with {REBUILD}"
    )


def unusable_text(place: FirestorePlace, store: StoreDocument) -> str:
    """Return why marks cannot be judged by a store, and what to do."""
    if store.retired:
        return f"the marks of the watermark store in {place} were moved to another driver: use that one"
    if store.layout == 0:
        return f"the watermark store in {place} was not made to its end: repeat `enclave-host watermark init`, or what made it"
    if store.layout != LAYOUT:
        return f"the watermark store in {place} has layout {store.layout}, this version knows {LAYOUT}: use a later version"
    return f"the watermark store in {place} is {store.store_id}, another one than at the start: restart the host"


def damaged_text(key: MarkKey, damaged: DamagedMark) -> str:
    """Return why a right is refused alone, and the way back."""
    above = "" if damaged.known is None else f", and above level {damaged.known.level}"
    return (
        f"the mark for {key} is damaged, and nothing is signed for it: {damaged}: stop the host and raise it above everything "
        f"that may have been signed{above} (`enclave-host watermark raise {key.chain_id} {key.pkh} {key.right} LEVEL`)"
    )
