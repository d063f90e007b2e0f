"""The SQLite file that holds the marks: making, opening, reading, writing. Synchronous; `file` is the store on top.

- Absence is not permission: a file is made by `create` and by nothing else; a missing one is an error.
- Whoever writes has the file for itself, and knows where it really lies: `store_files`.
- Every connection checks that the file is ours and sound, that SQLite keeps a write-ahead log (WAL), and that it waits
  for the disk at every commit (synchronous FULL).
- What was read when opening is made durable before it is used, by a checkpoint of the whole log: the last process may
  have been killed between write and fsync, or its fsync may have failed.
- One write is one statement, hence one transaction and one fsync; and it must raise every mark that it writes. If it
  does not, someone else wrote to the file.

Source: https://sqlite.org/wal.html and https://sqlite.org/pragma.html#pragma_synchronous
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

from enclave_signer.tezos.consensus import Right
from host_backend.durable import real_path, write_durably
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.rule import MAX_LEVEL, Mark, MarkKey, in_range, is_above
from host_backend.watermark.signatory_files import SignatoryFolder, merged
from host_backend.watermark.store_files import DAMAGED_ADVICE, exclusively, log_of, reporting

#: "EHWM" in the file's header: tells our file from any other SQLite file.
APPLICATION_ID = 0x4548574D
#: Version of the table below, in the file's header.
SCHEMA_VERSION = 1
#: `PRAGMA synchronous` in numbers: FULL.
_SYNCHRONOUS_FULL = 2

#: Seconds to wait for another program to let go of the file: less than a request waits, so that it hears the reason.
_BUSY_TIMEOUT_S = 2.0

# STRICT needs SQLite 3.37 (2021); older ones call it a syntax error.
_SCHEMA = """
CREATE TABLE marks (
    chain_id TEXT NOT NULL,
    pkh TEXT NOT NULL,
    "right" TEXT NOT NULL CHECK ("right" IN ('block', 'preattestation', 'attestation')),
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 2147483647),
    round INTEGER NOT NULL CHECK (round BETWEEN 0 AND 2147483647),
    digest BLOB CHECK (length(digest) = 32),
    PRIMARY KEY (chain_id, pkh, "right")
) STRICT, WITHOUT ROWID
"""
_SELECT = 'SELECT chain_id, pkh, "right", level, round, digest FROM marks'
_UPSERT_HEAD = "INSERT INTO marks VALUES "
_UPSERT_ROW = "(?, ?, ?, ?, ?, ?)"
_UPSERT_TAIL = (
    ' ON CONFLICT (chain_id, pkh, "right") DO UPDATE'
    " SET level = excluded.level, round = excluded.round, digest = excluded.digest"
    " WHERE (excluded.level, excluded.round) > (level, round)"
)

#: How to get a connection to an existing file; every statement must be its own transaction.
Connect = Callable[[Path], sqlite3.Connection]


def connect_existing(path: Path) -> sqlite3.Connection:
    """Connect for reading and writing; a missing file is an error."""
    return _connect(path, "rw")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_TIMEOUT_S)


def create(path: Path) -> None:
    """Make a new file without marks, durably.

    Args:
        path: The file; its folder must exist.

    Raises:
        ConfigError: There is one already, or a part of one; or another process has the folder.
        StoreUnavailable: It could not be written.
    """
    with exclusively(path) as real:
        # A log left behind by another file would be read into this one.
        for existing in (real, *(real.with_name(real.name + end) for end in ("-wal", "-shm", "-journal"))):
            if existing.exists():
                raise ConfigError(f"{existing} exists: a watermark store is never overwritten; move it away first")
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            write_durably(real, connection.serialize())


def read_marks(path: Path) -> dict[MarkKey, Mark]:
    """Read every mark and leave no trace; a running host may have the file meanwhile.

    Raises:
        ConfigError: There is no file, or it is not ours or not sound.
        StoreUnavailable: It could not be read.
    """
    with reporting(path):
        real = real_path(path)
        _require_file(real)
        # Without a log, reading would make an empty one, and the next start would not miss one that a crash left.
        with closing(_connect(real, "ro" if log_of(real).exists() else "ro&immutable=1")) as connection:
            _require_ours(connection, real)
            return _load(connection)


def raise_mark(path: Path, key: MarkKey, level: int, round_: int) -> None:
    """Move one mark up, durably and without a digest: nothing is signed any more at or below that level and round.

    Args:
        path: The file; no host may be running on it.
        key: Whose mark; it may have none yet.
        level: From 0 to 2^31 - 1.
        round_: From 0 to 2^31 - 1.

    Raises:
        ConfigError: That would not move the mark up; or there is no file, or another process has it.
        StoreUnavailable: Not known to be stored.
    """
    mark = Mark(level, round_, None)
    if not in_range(mark):
        raise ConfigError(f"{mark}: both must be from 0 to {MAX_LEVEL}")
    folder = SignatoryFolder(path.parent)
    with exclusively(path) as real:
        whole = _is_whole(real, folder)
        connection, marks = open_marks(real)
        try:
            stored = marks.get(key)
            if stored is not None and not is_above(mark, stored):
                raise ConfigError(f"the mark for {key} is at {stored} and moves only up, so not to {mark}")
            folder.note_opened()
            write_marks(connection, {key: mark})
        finally:
            if whole:
                close_marks(connection, real, folder)
            else:
                connection.close()


def export_marks(path: Path) -> None:
    """Hand every mark to Signatory's files, with what those say already, and let Signatory start on them.

    Args:
        path: The file; no host may be running on it.

    Raises:
        ConfigError: There is no file, another process has it, marks may be lost, or Signatory's files cannot be read.
        StoreUnavailable: Not done.
    """
    folder = SignatoryFolder(path.parent)
    with exclusively(path) as real:
        folder.hand_back(read_all(real, folder))


def read_all(path: Path, folder: SignatoryFolder) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right, of the file and of Signatory's; call inside `exclusively`.

    Args:
        path: The real file.
        folder: Signatory's files.

    Raises:
        HostError: As `export_marks` does.
    """
    require_log(path, folder)
    connection, marks = open_marks(path)
    close_marks(connection, path, folder)
    for key, mark in folder.read().items():
        marks[key] = merged(marks.get(key), mark)
    return marks


def require_log(path: Path, folder: SignatoryFolder) -> None:
    """Pass when nothing of the file can be missing; call before it is opened.

    Args:
        path: The real file.
        folder: Signatory's files, and the note of the last host.

    Raises:
        ConfigError: The last host did not end in order, and the log that it must have left is gone; or a host has kept
            its marks in memory since.
    """
    if folder.forgotten:
        raise ConfigError(forgotten_text(folder))
    if not _is_whole(path, folder):
        raise ConfigError(
            f"{log_of(path)} is missing, though the last host did not end in order: marks may be lost; put it back, or "
            "raise the marks of all keys above everything signed (`enclave-host watermark raise`) and then remove "
            f"{folder.in_use_file}"
        )


def forgotten_text(folder: SignatoryFolder) -> str:
    """Return what to do after marks were kept in memory."""
    return (
        "the last host had `watermark.driver: mem`, so what it signed is not known: make a store (`enclave-host "
        f"watermark init`) where there is none, after removing {folder.in_use_file}, and raise the marks of all keys "
        "above everything signed (`enclave-host watermark raise`)"
    )


def _is_whole(path: Path, folder: SignatoryFolder) -> bool:
    # SQLite removes its log when the file is closed, which is noted then; a crash leaves log and note as they were.
    return not folder.left_behind or folder.closed_whole or log_of(path).exists()


def open_marks(path: Path, connect: Connect = connect_existing) -> tuple[sqlite3.Connection, dict[MarkKey, Mark]]:
    """Open the file for writing and read every mark; call inside `exclusively`.

    Returns:
        The connection, for this thread only, and the marks, which are durable.

    Raises:
        ConfigError: There is no file, it is not ours, or it or SQLite does not give the durability asked for.
        sqlite3.Error: It is not sound, or could not be read or written.
    """
    _require_file(path)
    connection = connect(path)
    try:
        _require_ours(connection, path)
        _require_durability(connection, path)
        return connection, _load(connection)
    except BaseException:
        connection.close()
        raise


def close_marks(connection: sqlite3.Connection, path: Path, folder: SignatoryFolder) -> None:
    """Close the file, which brings its log into it and removes the log, unless another program reads it meanwhile.

    A crash in the midst must not look like a lost log: once the log is empty that is noted, while Signatory is kept out.
    A log that is still there, or was taken away by someone else, may have marks that the file has not: nothing is noted.
    """
    whole = False
    try:
        with suppress(sqlite3.Error, StoreUnavailable, OSError):
            if folder.left_behind and not _pragma(connection, "wal_checkpoint(TRUNCATE)"):
                whole = True
                folder.note_closed()
    finally:
        before = _is_there(log_of(path))
        connection.close()
        whole = whole or (before is True and _is_there(log_of(path)) is False)
        with suppress(StoreUnavailable, OSError):
            if whole and folder.left_behind and not folder.closed_whole:
                folder.note_closed()


def _is_there(path: Path) -> bool | None:
    """None: not known, on a disk that fails."""
    try:
        return path.exists()
    except OSError:
        return None


def lower_mark(connection: sqlite3.Connection, key: MarkKey, mark: Mark) -> None:
    """Move one mark anywhere, also down; durable when this returns. For `watermark reset` and nothing else.

    Raises:
        sqlite3.Error: Whether it is stored is not known; open the file anew.
    """
    where = (key.chain_id, key.pkh, key.right.value)
    connection.execute(
        'UPDATE marks SET (level, round, digest) = (?, ?, ?) WHERE (chain_id, pkh, "right") = (?, ?, ?)',
        (mark.level, mark.round, mark.digest, *where),
    )


def write_marks(connection: sqlite3.Connection, marks: Mapping[MarkKey, Mark]) -> None:
    """Store marks that are above the stored ones, all of them or none; durable when this returns.

    Args:
        connection: From `open_marks`.
        marks: At least 1, at most 5000: six variables each, and SQLite allows 32766 in one statement.

    Raises:
        StoreUnavailable: A mark was not above the stored one, so someone else has written; open the file anew.
        sqlite3.Error: Whether they are stored is not known; open the file anew.
    """
    values: list[str | int | bytes | None] = []
    for key, mark in marks.items():
        values += (key.chain_id, key.pkh, key.right.value, mark.level, mark.round, mark.digest)
    statement = _UPSERT_HEAD + ", ".join([_UPSERT_ROW] * len(marks)) + _UPSERT_TAIL
    written = connection.execute(statement, values).rowcount
    if written != len(marks):
        raise StoreUnavailable(
            "another process has written watermarks, despite the lock: find it and stop it; nothing was signed"
        )


def forget_digest(connection: sqlite3.Connection, key: MarkKey) -> None:
    """Let no message be repeated at a stored mark; durable when this returns.

    Raises:
        sqlite3.Error: Whether it is stored is not known; open the file anew.
    """
    where = (key.chain_id, key.pkh, key.right.value)
    connection.execute('UPDATE marks SET digest = NULL WHERE (chain_id, pkh, "right") = (?, ?, ?)', where)


def _load(connection: sqlite3.Connection) -> dict[MarkKey, Mark]:
    return {
        MarkKey(chain_id, pkh, Right(right)): Mark(level, round_, digest)
        for chain_id, pkh, right, level, round_, digest in connection.execute(_SELECT)
    }


def _require_file(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            f"no watermark store at {path}: if its keys have never signed elsewhere, make one with "
            "`enclave-host watermark init`; otherwise put the store back"
        )


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    application_id = _pragma(connection, "application_id")
    if application_id != APPLICATION_ID:
        raise ConfigError(
            f"{path} is not a watermark store (application id {application_id}): put the right file there"
        )
    version = _pragma(connection, "user_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has version {version}, and this program knows {SCHEMA_VERSION}: use the matching one"
        )
    verdict = _pragma(connection, "quick_check(1)")
    if verdict != "ok":
        raise ConfigError(f"{path} is damaged ({verdict}): {DAMAGED_ADVICE}")


def _require_durability(connection: sqlite3.Connection, path: Path) -> None:
    journal_mode = _pragma(connection, "journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS_FULL}")
    synchronous = _pragma(connection, "synchronous")
    if (journal_mode, synchronous) != ("wal", _SYNCHRONOUS_FULL):
        raise ConfigError(
            f"{path}: SQLite gives journal mode {journal_mode} and synchronous {synchronous} where wal and "
            f"{_SYNCHRONOUS_FULL} are needed for marks to survive a power loss: use a local disk"
        )
    # Writes what is there already: a file that cannot be written is to be known now, not at the first signature.
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    busy = _pragma(connection, "wal_checkpoint(TRUNCATE)")
    if busy:
        raise StoreUnavailable(f"{path} is kept busy by another program: find it and stop it")


def _pragma(connection: sqlite3.Connection, text: str) -> object:
    """The first column of the first row."""
    (value, *_) = connection.execute(f"PRAGMA {text}").fetchone()
    return value
