"""A disk that fails or stalls when told: real SQLite connections whose writes and openings can be made to go wrong."""

import sqlite3
import threading
from pathlib import Path

_WRITE = "INSERT"


class FailingSqlite:
    """Gives connections, and says what happens to them. `connect` is what a store takes.

    Attributes:
        fail_before: That many coming writes fail without writing.
        fail_after: That many coming writes are written, and fail nevertheless, as when an fsync fails.
        fail_openings: That many coming openings fail.
        writes: Writes tried so far.
        stalled: Set when a write has reached the gate.
        gate: Writes wait until it is set.
    """

    def __init__(self) -> None:
        self.fail_before = 0
        self.fail_after = 0
        self.fail_openings = 0
        self.writes = 0
        self.stalled = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def connect(self, path: Path) -> sqlite3.Connection:
        if self.fail_openings:
            self.fail_openings -= 1
            raise sqlite3.OperationalError("unable to open database file")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, factory=_Connection
        )
        connection.disk = self
        return connection


class _Connection(sqlite3.Connection):
    disk: FailingSqlite

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        if not sql.startswith(_WRITE):
            return super().execute(sql, parameters)  # type: ignore[arg-type]
        assert isinstance(parameters, list)
        self.disk.writes += 1
        self.disk.stalled.set()
        assert self.disk.gate.wait(60)
        if self.disk.fail_before:
            self.disk.fail_before -= 1
            raise sqlite3.OperationalError("database or disk is full")
        cursor = super().execute(sql, parameters)
        if self.disk.fail_after:
            self.disk.fail_after -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return cursor
