"""Programs whose log no one reads once they are ready, until a test does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.doubles.host_process import Host
from tests.doubles.processes import Enclave, Program

#: What a program says last before it serves.
_READY = ('msg="listening on', 'msg="HTTP server is listening')


class _Unread(Program):
    def _read(self) -> None:
        self._resumed = threading.Event()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
            if any(word in line for word in _READY):
                self._resumed.wait()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def read_on(self) -> None:
        """Read the log from now on."""
        self._resumed.set()

    def end_unread(self) -> int:
        """Stop it in order while no one reads, and return its exit code; what it could write is in `log` then."""
        self.process.terminate()
        code = self.process.wait(60)
        self.read_on()
        self.stop()
        return code


class UnreadEnclave(_Unread, Enclave):
    """A daemon."""


class UnreadHost(_Unread, Host):
    """A host."""


@contextmanager
def ended(program: _Unread) -> Iterator[None]:
    """Kill a program at the end if it still runs."""
    try:
        yield
    finally:
        program.read_on()
        if program.process.poll() is None:
            program.process.kill()
        program.stop()
        assert program.process.stderr is not None
        program.process.stderr.close()


def start_enclave(key_file: Path, *arguments: str) -> UnreadEnclave:
    import sys

    command = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", "--sealing-key", str(key_file)]
    command.append("--make-sealing-key")
    return UnreadEnclave([*command, *arguments])
