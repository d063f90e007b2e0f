"""The SQLite store of version 0.1, which is read once and never again.

- Its marks are believed only if its host ended in order: its log ends in silence at the first frame that cannot be read.
  Such a host has written the same marks to Signatory's files, or left a note that it could not.
- It is not believed behind a second name, or as a mount of its own: its log and its lock lie beside it, perhaps
  elsewhere.
- Once its marks are in the new store it is marked inside, so that version 0.1 refuses it; then it is renamed.

Source: the store of version 0.1; https://sqlite.org/fileformat.html, section 1.3.
"""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from enum import StrEnum
from pathlib import Path

from enclave_signer.tezos import Right
from host_backend.durable import fsync_directory, open_regular
from host_backend.errors import ConfigError, StateConflict
from host_backend.watermark.file.place import OLD_STORE_NAME, REBUILD, is_mount_point, store_path
from host_backend.watermark.rule import Mark, MarkKey, is_above
from host_backend.watermark.signatory.folder import SignatoryFolder

#: "EHWM" in the header, and the versions there: of 0.1, and of a store whose marks were taken over.
_APPLICATION_ID = 0x4548574D
_VERSION = 1
_TAKEN_OVER_VERSION = 2
#: What its name becomes.
TAKEN_OVER_SUFFIX = ".taken-over"
_WRITE_VERSION_OFFSET, _VERSION_OFFSET, _APPLICATION_ID_OFFSET, _HEADER_BYTES = 18, 60, 68, 100
#: Write version of a file that was opened with a log, as every host of 0.1 did.
_WITH_LOG = 2
_SELECT = 'SELECT chain_id, pkh, "right", level, round, digest FROM marks'


class OldStore(StrEnum):
    """What there is of a store of version 0.1."""

    NONE = "none"
    #: Its marks are in the new store.
    TAKEN_OVER = "taken over"
    #: Its marks count.
    COUNTS = "counts"


def old_store_path(base_dir: Path) -> Path:
    """Return the path at which version 0.1 keeps its marks."""
    return base_dir / OLD_STORE_NAME


def state_of(path: Path) -> OldStore:
    """Look whether there is an old store; changes nothing, also beside a running host of version 0.1.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with open_regular(path) as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        renamed = path.with_name(path.name + TAKEN_OVER_SUFFIX)
        return OldStore.TAKEN_OVER if renamed.exists() else OldStore.NONE
    version = int.from_bytes(header[_VERSION_OFFSET : _VERSION_OFFSET + 4])
    taken_over = _application_id(header) == _APPLICATION_ID and version == _TAKEN_OVER_VERSION
    return OldStore.TAKEN_OVER if taken_over else OldStore.COUNTS


def read_old_marks(path: Path, folder: SignatoryFolder) -> dict[MarkKey, Mark]:
    """Return the marks of an old store whose host ended in order; changes nothing.

    Args:
        path: Its path.
        folder: Signatory's files, and the note of the last host.

    Raises:
        ConfigError: It cannot be believed; the text says why, and what to do.
        OSError: It cannot be read.
    """
    _require_one_name(path)
    _require_orderly_end(path, folder)
    try:
        # Immutable: as SQLite would make a log beside the file otherwise.
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            _require_sound(connection, path)
            marks = _load(connection)
    except sqlite3.Error as error:
        raise _not_believed(path, f"it is not sound ({error})") from error
    if not folder.left_behind:
        _require_handed_back(path, folder, marks)
    return marks


def salvage_old_marks(path: Path) -> dict[MarkKey, Mark]:
    """Return whatever marks an old store gives, with what its log gives; for marks that are raised afterwards.

    From a copy: SQLite would bring the log into the file, and nothing would tell any more that there was one.

    Raises:
        OSError: It cannot be read.
    """
    real = path.resolve()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder, OLD_STORE_NAME)
        for end in ("", "-wal", "-journal"):
            if (file := real.with_name(real.name + end)).is_file():
                shutil.copyfile(file, copied.with_name(copied.name + end))
        try:
            with closing(sqlite3.connect(copied)) as connection:
                return _load(connection)
        except (sqlite3.Error, ValueError):
            return {}


def give_up_old_store(path: Path) -> None:
    """Mark an old store as taken over, durably, then rename it. May be repeated after a crash.

    Raises:
        OSError: Not done.
    """
    real = path.resolve()
    if real.with_name(f"{real.name}-wal").exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{real.as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    descriptor = os.open(real, os.O_RDWR)
    try:
        # Not by SQLite: it would write a log first, and a death there would look like a host that did not end in order.
        if _application_id(os.pread(descriptor, _HEADER_BYTES, 0)) == _APPLICATION_ID:
            os.pwrite(descriptor, _TAKEN_OVER_VERSION.to_bytes(4), _VERSION_OFFSET)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.replace(path.with_name(path.name + TAKEN_OVER_SUFFIX))
    fsync_directory(path.parent)


def _application_id(header: bytes) -> int:
    return int.from_bytes(header[_APPLICATION_ID_OFFSET : _APPLICATION_ID_OFFSET + 4])


def _require_one_name(path: Path) -> None:
    real = path.resolve()
    if path.stat().st_nlink != 1:
        raise _not_believed(path, "it has a second name (a hard link), so its log may lie elsewhere")
    if is_mount_point(real):
        raise _not_believed(path, "it is mounted as a file of its own, so its log may have been left elsewhere")


def _require_orderly_end(path: Path, folder: SignatoryFolder) -> None:
    real = path.resolve()
    if folder.left_behind and not (folder.left_closed_by_0_1 or folder.left_open):
        raise _not_believed(path, "its host did not end in order")
    for end in ("-wal", "-journal"):
        log = real.with_name(real.name + end)
        if log.exists() and log.stat().st_size:
            raise _not_believed(path, f"{log.name} beside it has something that is not in it")


def _require_handed_back(path: Path, folder: SignatoryFolder, marks: dict[MarkKey, Mark]) -> None:
    """Pass when Signatory's files have what an orderly stop writes there; a file that came alone was left in disorder."""
    theirs = folder.read()
    missing = [key for key, mark in marks.items() if key not in theirs or is_above(mark, theirs[key])]
    with open_regular(path) as file:
        opened = file.read(_HEADER_BYTES)[_WRITE_VERSION_OFFSET] == _WITH_LOG
    if missing or (opened and not folder.path.is_dir()):
        raise _not_believed(path, "Signatory's files beside it do not have what an orderly stop writes there")


def _not_believed(path: Path, why: str) -> ConfigError:
    return StateConflict(
        f"{path}, the watermark store of version 0.1, cannot be taken over as it is: {why}. Its marks may be too low: "
        "`enclave-host watermark migrate --above-level N` takes it over with every mark raised to level N, which must "
        f"be at or above every level that may have been signed; or rebuild the store with {REBUILD}"
    )


def _require_sound(connection: sqlite3.Connection, path: Path) -> None:
    found = (_pragma(connection, "application_id"), _pragma(connection, "user_version"))
    if found != (_APPLICATION_ID, _VERSION):
        raise _not_believed(path, f"it is not a watermark store (application id and version {found})")
    verdict = _pragma(connection, "quick_check(1)")
    if verdict != "ok":
        raise _not_believed(path, f"it is damaged ({verdict})")


def _load(connection: sqlite3.Connection) -> dict[MarkKey, Mark]:
    return {
        MarkKey(chain_id, pkh, Right(right)): Mark(level, round_, digest)
        for chain_id, pkh, right, level, round_, digest in connection.execute(_SELECT)
    }


def _pragma(connection: sqlite3.Connection, text: str) -> object:
    """The first column of the first row."""
    (value, *_) = connection.execute(f"PRAGMA {text}").fetchone()
    return value


def file_store_in(base_dir: Path) -> Path | None:
    """Return the store of a folder that a file driver would sign on, of this version or the old one; None without one."""
    if store_path(base_dir).exists():
        return store_path(base_dir)
    return old_store_path(base_dir) if state_of(old_store_path(base_dir)) is OldStore.COUNTS else None
