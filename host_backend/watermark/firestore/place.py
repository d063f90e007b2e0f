"""What a folder remembers of marks in Firestore: which store it has accepted, and that the marks are not here.

- A wrong project, database or collection is an empty store, or somebody else's. So a host starts on none but the store
  that its folder remembers; which one that is, is accepted once, by name.
- While the marks are in Firestore the folder holds the file that keeps Signatory, and other drivers, from starting here.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from host_backend import strict_json
from host_backend.config.google_places import FirestorePlace
from host_backend.durable import Claim, fsync_directory, write_durably
from host_backend.errors import ConfigError, StateConflict, StoreUnavailable, reason_of
from host_backend.watermark.file.old_sqlite import file_store_in
from host_backend.watermark.file.place import REBUILD, held_folder, reporting, store_path
from host_backend.watermark.firestore.layout import StoreDocument
from host_backend.watermark.firestore.states import missing_text, unusable_text
from host_backend.watermark.signatory.folder import SignatoryFolder

#: Where the accepted store is remembered, in the host's folder.
REMEMBERED_NAME = "watermark.firestore.json"
#: Where the folder notes what it has begun in Firestore, before it begins.
BEGUN_NAME = "watermark.firestore.begun.json"
#: At most so many notes: moves to and fro since the oldest one that can be taken back.
_MAX_BEGUN = 64
#: Both have some hundred bytes.
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
        self._begun = base_dir / BEGUN_NAME
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
        if not whatever_was_signed and self.signatory.forgotten:
            raise StateConflict(
                "the last host here had `watermark.driver: mem`, so what it signed is not known: rebuild the marks with "
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

    def begun(self) -> tuple[str, ...]:
        """Return the ids of stores and moves that this folder has begun.

        Raises:
            ConfigError: The file is not ours.
            StoreUnavailable: It cannot be read.
        """
        match _read(self._begun):
            case None:
                return ()
            case list(ids) if all(isinstance(each, str) and each for each in ids):
                return tuple(ids)
        raise StateConflict(
            f"{self._begun} is not what this host wrote there: rename it; a store that was not completed is then made "
            f"again with {REBUILD}"
        )

    def begin(self) -> str:
        """Return the id of a store or move that is about to begin, noted durably."""
        begun_id = secrets.token_hex(8)
        noted = [*self.begun(), begun_id][-_MAX_BEGUN:]
        try:
            write_durably(self._begun, json.dumps(noted, indent=4).encode())
        except OSError as error:
            raise StoreUnavailable(f"{self._begun} cannot be written: {reason_of(error)}") from error
        return begun_id

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
            raise StateConflict(missing_text(self._place, None if remembered is None else remembered.place))
        if not store.usable(self._place):
            raise StateConflict(unusable_text(self._place, store))
        if remembered is None or (remembered.store_id, remembered.place.name) != (store.store_id, self._place.name):
            had = "none was accepted here" if remembered is None else f"this host had another one ({remembered.place})"
            raise StateConflict(
                f"the watermark store in {self._place} is {store.store_id}, and {had}: if it has all marks of these keys, accept "
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
    match _read(file):
        case None:
            return None
        case {
            "store": str(store_id),
            "project": str(project),
            "database": str(database),
            "collection": str(collection),
            "application_credentials": None | str() as credentials,
        }:
            path = None if credentials is None else Path(credentials)
            return Remembered(store_id, FirestorePlace(project, database, collection, path))
    raise StateConflict(
        f"{file} is not what this host wrote there: accept the store again (`enclave-host serve --accept-store`)"
    )


def _read(file: Path) -> object:
    """Return what a file says in JSON, "" for one that is none; None when there is no file."""
    try:
        with file.open("rb") as opened:
            told: object = strict_json.loads(opened.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError):
        return ""
    return "" if told is None else told
