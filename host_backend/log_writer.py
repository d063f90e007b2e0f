"""A thread that writes the log, so that a stopped reader does not stop the program.

- The queue is bounded. What finds it full, or cannot be written, is dropped and counted; one line says how many when the
  log flows again.
- A line is written whole where it has at most `PIPE_BUF` bytes: two programs may share one pipe.
- This file is the same in both programs, as is `log`: neither imports the other for it. A test holds them together.
"""

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

#: Lines that may wait, some 4 MB: a reader that is restarted is back within seconds.
MAX_WAITING_LINES = 4096
#: Bytes written at once. Source: Linux, `PIPE_BUF`; up to it a pipe takes all or nothing.
WRITE_BYTES = 4096
#: Seconds for which lines are gathered: to wake a thread for each takes longer than to write it.
GATHER_S = 0.01
#: Seconds without a byte taken after which the end of a program does not wait for the reader any longer.
STALLED_S = 1.0


class LogWriter:
    """Writes records in the order in which they came.

    Args:
        descriptor: Where to; it may block, and may be broken.
        form: Returns the line of a record; called in the thread.
    """

    def __init__(self, descriptor: int, form: Callable[[logging.LogRecord], str]) -> None:
        self._descriptor = descriptor
        self._form = form
        self._queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._moved = threading.Condition()
        self._taken = 0
        self._done = 0
        self._refused = 0
        self._unwritten = 0
        self._told = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """How many lines were dropped so far."""
        return self._refused + self._unwritten

    def put(self, record: logging.LogRecord) -> None:
        """Have a record written, or count it as dropped; one caller at a time, as of a `logging.Handler`."""
        if self._taken - self._done >= MAX_WAITING_LINES:
            self._refused += 1
            return
        self._taken += 1
        self._queue.put(record)

    def flush(self) -> None:
        """Return when all is written that was put, or when the reader has taken nothing for `STALLED_S`."""
        target = self._taken
        with self._moved:
            while self._done < target:
                if not self._moved.wait(STALLED_S):
                    return

    def _run(self) -> None:
        while True:
            record: logging.LogRecord | None = self._queue.get()
            time.sleep(GATHER_S)
            data, lines = b"", 0
            while record is not None:
                line = self._line(record)
                if data and len(data) + len(line) > WRITE_BYTES:
                    self._finish(data, lines)
                    data, lines = b"", 0
                data, lines = data + line, lines + 1
                record = self._next()
            self._finish(data, lines)

    def _next(self) -> logging.LogRecord | None:
        try:
            return self._queue.get_nowait()
        except Empty:
            return None

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            line = self._form(record)
        except Exception as error:  # noqa: BLE001 -- a bug in one call of the log must not end the whole log
            # Not the error's text, which could hold a value that was to be masked.
            line = self._form(
                _own(logging.ERROR, f"a log line of {record.name} cannot be made: {type(error).__name__}")
            )
        return f"{line}\n".encode(errors="backslashreplace")

    def _finish(self, data: bytes, lines: int) -> None:
        if not self._written(data):
            self._unwritten += lines
        elif self.dropped > self._told:
            self._tell()
        with self._moved:
            self._done += lines
            self._moved.notify_all()

    def _tell(self) -> None:
        dropped = self.dropped
        if self._written(self._line(_own(logging.WARNING, f"{dropped - self._told} log lines were dropped"))):
            self._told = dropped

    def _written(self, data: bytes) -> bool:
        """Write all of it; return False if it can never be read."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # Another process that shares the stream has made it so.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True


def _own(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, level, __file__, 0, text, None, None)


def open_closed_streams() -> None:
    """Open standard input, output and error on /dev/null where closed: no socket may have their numbers. Call first."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 -- for as long as the process lives
