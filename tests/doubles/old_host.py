"""Version 0.1 as far as marks go: its SQLite store, its lock, its note, and what it does with Signatory's files.

Written after its documents and its files, not with its code; it judges by the same law.
"""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from enclave_signer.tezos import Right
from host_backend.watermark.rule import Mark, MarkKey, judge, merged
from host_backend.watermark.signatory.layouts import (
    FOLDER,
    IN_USE_NAME,
    read_signatory_marks,
    write_signatory_marks,
)

NAME = "watermark.sqlite"
OPEN_NOTE = b'"enclave-host has these keys: stop it before Signatory starts"\n'
CLOSED_NOTE = b'"enclave-host had these keys and did not hand them back: start it, or enclave-host watermark export"\n'
_SCHEMA = """
CREATE TABLE marks (
    chain_id TEXT NOT NULL, pkh TEXT NOT NULL, "right" TEXT NOT NULL,
    level INTEGER NOT NULL, round INTEGER NOT NULL, digest BLOB,
    PRIMARY KEY (chain_id, pkh, "right")
) STRICT, WITHOUT ROWID
"""


class OldRefusal(Exception):
    """It does not start."""


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)


def make_old_store(base: Path) -> None:
    """Make an empty one, as `watermark init` of 0.1 does."""
    with sqlite3.connect(base / NAME, isolation_level=None) as connection:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {0x4548574D}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


class OldHost:
    """A running host of version 0.1 on a folder. Use `stop` or `kill`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.note = base / FOLDER / IN_USE_NAME
        self._lock = os.open(base / "watermark.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._start()
        except BaseException:
            os.close(self._lock)
            raise

    def _start(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OldRefusal("in use") from None
        path = self.base / NAME
        left_behind = self.note.exists()
        if not path.exists():
            if left_behind or not read_signatory_marks(self.base):
                raise OldRefusal("no watermark store")
            make_old_store(self.base)
        if left_behind and self.note.read_bytes() != CLOSED_NOTE and not path.with_name(f"{NAME}-wal").exists():
            raise OldRefusal("the log is missing")
        self.connection = connect(path)
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if version != 1:
            self.connection.close()
            raise OldRefusal(f"version {version}")
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = 2")
        self.marks = read_old(self.connection)
        theirs = read_signatory_marks(self.base)
        self.note.parent.mkdir(exist_ok=True)
        self.note.write_bytes(OPEN_NOTE)
        for key, mark in theirs.items():
            self._write(key, merged(self.marks.get(key), mark))

    def advance(self, key: MarkKey, asked: Mark) -> None:
        """Raises `WatermarkRejected` as the law has it."""
        judge(key, self.marks.get(key), asked)
        self._write(key, asked)

    def _write(self, key: MarkKey, mark: Mark) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?, ?)",
            (key.chain_id, key.pkh, key.right.value, mark.level, mark.round, mark.digest),
        )
        self.marks[key] = mark

    def stop(self) -> None:
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
        write_signatory_marks(self.base, self.marks)
        self.note.unlink()
        os.close(self._lock)

    def stop_without_handing_back(self) -> None:
        """End in order while Signatory's files cannot be written."""
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()
        self.note.write_bytes(CLOSED_NOTE)
        os.close(self._lock)

    def kill(self) -> None:
        """Leave the files as `kill -9` does: the log stays."""
        kept = self.base.with_name(f"{self.base.name}.killed")
        shutil.copytree(self.base, kept)
        self.connection.close()
        os.close(self._lock)
        shutil.rmtree(self.base)
        kept.rename(self.base)


def read_old(connection: sqlite3.Connection) -> dict[MarkKey, Mark]:
    return {
        MarkKey(chain, pkh, Right(right)): Mark(level, round_, digest)
        for chain, pkh, right, level, round_, digest in connection.execute("SELECT * FROM marks")
    }


def old_folder(base: Path, marks: Mapping[MarkKey, Mark]) -> OldHost:
    """Make a folder of version 0.1 with marks; its host runs."""
    base.mkdir(parents=True)
    make_old_store(base)
    host = OldHost(base)
    for key, mark in marks.items():
        host.advance(key, mark)
    return host


def signatory_levels(base: Path) -> list[int]:
    """The levels in Signatory's present files."""
    files = (base / FOLDER).glob("Net*.json")
    return [state["level"] for file in files for key in json.loads(file.read_text()).values() for state in key.values()]
