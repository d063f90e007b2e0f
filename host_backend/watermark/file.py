"""Marks in a file of the host's folder: the store of a host that has a disk.

- One process has the file, by an exclusive lock held from `open` to `aclose`; within it one thread has the connection.
- That thread takes everything that waits as one batch, judges it in order against the stored marks and the batch so
  far, and writes what advanced. Only then does anyone in the batch get an answer: a repeat of a mark that is being
  written has waited for it, and many requests share one fsync.
- After any error of a write its outcome is unknown: the whole batch gets `StoreUnavailable`, the file is closed, and
  the next request opens and reads it again. If it has by then fallen behind a mark already answered for, nothing is
  signed any more.
- What is in the file, and when it is durable: `sqlite_marks`.
- Signatory's marks are merged at every start and handed back at an orderly stop; while the store is open Signatory
  cannot start, and once its folder was changed by anyone else nothing is signed: `signatory_files`.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from host_backend.durable import real_path
from host_backend.errors import ConfigError, HostError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkedChains, MarkKey, Verdict, is_above, judge
from host_backend.watermark.signatory_files import SignatoryFolder, merged
from host_backend.watermark.sqlite_marks import (
    Connect,
    close_marks,
    connect_existing,
    create,
    export_marks,
    forget_digest,
    open_marks,
    raise_mark,
    read_marks,
    require_log,
    write_marks,
)
from host_backend.watermark.store_files import STORE_NAME, Footprint, exclusively, footprint, log_of

__all__ = ["STORE_NAME", "FileWatermarkStore", "create", "export_marks", "raise_mark", "read_marks"]

#: Requests judged together: more than keys times rights of any baker, and far below what `write_marks` takes at once.
_MAX_BATCH = 1000

#: What is around every write to the disk, in the store's thread. One write stores all marks that waited together.
Writing = Callable[[], AbstractContextManager[None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    key: MarkKey
    asked: Mark
    answer: asyncio.Future[Verdict]


class FileWatermarkStore:
    """A `WatermarkStore` in one SQLite file. Get one from `open`; it belongs to the event loop that runs then."""

    def __init__(self, path: Path, max_level_jump: int, connect: Connect, writing: Writing) -> None:
        self._path = path
        self._max_level_jump = max_level_jump
        self._connect = connect
        self._writing = writing
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        # None ends the thread; nothing is put after it.
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._signatory = SignatoryFolder(path.parent)
        self.problem: str | None = None
        # Only the thread touches these.
        self._real = self._log = path
        self._footprint: Footprint | None = None
        self._connection: sqlite3.Connection | None = None
        self._marks: dict[MarkKey, Mark] = {}
        # Ahead of the marks while a batch is written; made anew whenever they are read.
        self._chains = MarkedChains()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP,
        connect: Connect = connect_existing,
        writing: Writing = nullcontext,
    ) -> Self:
        """Open the store and keep every other process out until `aclose`.

        Args:
            path: The file that `create` made.
            max_level_jump: Levels, at least 0, by which one request may pass the stored mark.
            connect: Another way to get connections: the seam at which tests make a disk fail.
            writing: What is around every write, for whoever measures them.

        Raises:
            ConfigError: No store, not ours, not sound, or another process has it; the text says which.
            StoreUnavailable: It could not be read or written.
        """
        store = cls(path, max_level_jump, connect, writing)
        # A daemon thread: whatever it answered for is durable, so the process may end at any moment.
        threading.Thread(target=store._run, name="watermark", daemon=True).start()
        try:
            await asyncio.shield(store._opened)
        except BaseException:
            await store.aclose()
            raise
        return store

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; see `WatermarkStore.advance`. Waits as long as the disk does."""
        if self._closing:
            raise StoreUnavailable(f"watermark store {self._path} is closed")
        answer: asyncio.Future[Verdict] = self._loop.create_future()
        self._requests.put(_Request(key, asked, answer))
        return await answer

    async def aclose(self) -> None:
        """Answer those who wait, close the file, let others have it; see `WatermarkStore.aclose`."""
        if not self._closing:
            self._closing = True
            self._requests.put(None)
        await asyncio.shield(self._ended)

    def _on_ended(self, error: HostError | None) -> None:
        """In the event loop: let nobody wait for a thread that has ended."""
        self._closing = True
        if error is not None and not self._opened.done():
            self._opened.set_exception(error)
        self._ended.set_result(None)

    # What follows runs in the thread.

    def _run(self) -> None:
        failure: HostError | None = None
        try:
            with exclusively(self._path) as self._real:
                self._log = log_of(self._real)
                require_log(self._real, self._signatory)
                try:
                    self._connection = self._open()
                    self._begin(self._connection)
                    self._loop.call_soon_threadsafe(self._opened.set_result, None)
                    self._serve()
                    self._hand_back()
                finally:
                    self._close()
        except HostError as error:
            failure = error
        except Exception:
            logger.exception("watermark store %s: a bug has ended its thread", self._path)
            failure = StoreUnavailable(f"watermark store {self._path}: its thread failed, see the log")
            self.problem = str(failure)
        finally:
            self._loop.call_soon_threadsafe(self._on_ended, failure)

    def _begin(self, connection: sqlite3.Connection) -> None:
        left_behind = self._signatory.left_behind
        try:
            # Signatory is kept out first, so that it can mark nothing between the reading and the watching.
            self._signatory.begin()
            self._take_over(connection)
            self._footprint = self._look()
            self._signatory.check()
        except BaseException:
            self._close()
            if not left_behind:
                self._signatory.withdraw()
            raise

    def _take_over(self, connection: sqlite3.Connection) -> None:
        higher: dict[MarkKey, Mark] = {}
        for key, theirs in self._signatory.read().items():
            stored = self._marks.get(key)
            mark = merged(stored, theirs)
            if stored is None or is_above(mark, stored):
                higher[key] = mark
            elif mark != stored:
                forget_digest(connection, key)
                self._marks[key] = mark
        entries = list(higher.items())
        for start in range(0, len(entries), _MAX_BATCH):
            write_marks(connection, dict(entries[start : start + _MAX_BATCH]))
        if higher:
            logger.warning("%d marks taken over from Signatory's files in %s", len(higher), self._path.parent)
            self._marks.update(higher)
            self._chains = MarkedChains(self._marks)

    def _hand_back(self) -> None:
        try:
            if self._connection is None:
                self._connection = self._open()
            self._signatory.check()
            self._signatory.hand_back(self._marks)
        except (HostError, sqlite3.Error) as error:
            text = "marks are not handed back to Signatory's files, so it must not start: %s"
            logger.error(text, error)  # noqa: TRY400 -- known, and said in words
            # Whatever became of the store, what was answered for is to be found by the next one.
            with suppress(HostError):
                self._signatory.check()
                self._signatory.save(self._marks)

    def _serve(self) -> None:
        while True:
            taken = [self._requests.get()]
            waiting = min(self._requests.qsize(), _MAX_BATCH - 1)
            taken.extend(self._requests.get() for _ in range(waiting))
            batch = [request for request in taken if request is not None]
            if batch:
                self._loop.call_soon_threadsafe(_deliver, batch, self._answer(batch))
            if taken[-1] is None:
                return

    def _answer(self, batch: Sequence[_Request]) -> Sequence[Verdict | HostError]:
        try:
            self._signatory.check()
        except StoreUnavailable as changed:
            self.problem = str(changed)
            return [changed for _ in batch]
        try:
            if self._connection is None:
                self._connection = self._open()
                self._signatory.begin()
            else:
                self._require_untouched()
            outcomes, advanced = self._judge(batch)
            if advanced:
                self._write(self._connection, advanced)
        except Exception as error:
            # Whatever it was, callers get an answer and the thread lives on.
            logger.exception("watermark store %s failed; %d requests are not signed", self._path, len(batch))
            self._close()
            self.problem = str(self._unavailable(error))
            return [self._unavailable(error) for _ in batch]
        self.problem = None
        return outcomes

    def _write(self, connection: sqlite3.Connection, advanced: dict[MarkKey, Mark]) -> None:
        with self._writing():
            write_marks(connection, advanced)
        before, self._footprint = self._footprint, footprint(self._path, self._log)
        # A file that has no name any more takes writes, and forgets them.
        if before is None or self._footprint is None or before[0] != self._footprint[0]:
            raise self._changed()
        self._marks.update(advanced)

    def _require_untouched(self) -> None:
        if footprint(self._path, self._log) != self._footprint:
            raise self._changed()

    def _changed(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"watermark store {self._path}, or its -wal, was changed, replaced or removed by another program despite "
            "the lock: find that program and stop it; nothing was signed"
        )

    def _judge(self, batch: Sequence[_Request]) -> tuple[Sequence[Verdict | HostError], dict[MarkKey, Mark]]:
        outcomes: list[Verdict | HostError] = []
        advanced: dict[MarkKey, Mark] = {}
        for request in batch:
            stored = advanced.get(request.key) or self._marks.get(request.key)
            try:
                verdict = judge(request.key, stored, request.asked, self._max_level_jump, self._chains)
            except WatermarkRejected as refusal:
                outcomes.append(refusal)
                continue
            if verdict is Verdict.ADVANCE:
                advanced[request.key] = request.asked
                if stored is None:
                    self._chains.add(request.key)
            outcomes.append(verdict)
        return outcomes, advanced

    def _open(self) -> sqlite3.Connection:
        if self._leads_elsewhere():
            # The next start would read another file than the one that is locked here.
            raise self._changed()
        connection, marks = open_marks(self._real, self._connect)
        try:
            self._require_not_behind(marks)
            self._footprint = self._look()
        except BaseException:
            connection.close()
            raise
        self._marks = marks
        self._chains = MarkedChains(marks)
        return connection

    def _leads_elsewhere(self) -> bool:
        try:
            return real_path(self._path) != self._real
        except OSError:
            return True

    def _require_not_behind(self, marks: Mapping[MarkKey, Mark]) -> None:
        for key, answered in self._marks.items():
            found = marks.get(key)
            if found != answered and (found is None or not is_above(found, answered)):
                raise StoreUnavailable(
                    f"watermark store {self._path} went back: {key} was at {answered} and is at {found or 'nothing'}; "
                    "stop the host and `enclave-host watermark raise` every mark above what was signed"
                )

    def _look(self) -> Footprint:
        found = footprint(self._path, self._log)
        if found is None:
            raise ConfigError(
                f"watermark store {self._path} was opened, and it or {self._log} cannot be found: a lost one would not "
                "be noticed; use a local disk, and see that no other program moves these files"
            )
        return found

    def _close(self) -> None:
        """Close the file, which also brings its log into it; what was answered for is durable either way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close_marks(connection, self._real, self._signatory)

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        text = str(error) if isinstance(error, HostError) else f"watermark store {self._path}: {error}"
        unavailable = StoreUnavailable(text)
        unavailable.__cause__ = error
        return unavailable


def _deliver(batch: Sequence[_Request], outcomes: Sequence[Verdict | HostError]) -> None:
    for request, outcome in zip(batch, outcomes, strict=True):
        if request.answer.done():
            continue  # its caller left
        if isinstance(outcome, Verdict):
            request.answer.set_result(outcome)
        else:
            request.answer.set_exception(outcome)
