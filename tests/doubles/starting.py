"""How tests start programs: `start` takes what `subprocess.Popen` does.

`python -m MODULE …` is forked by `tests.doubles.fork_server`, one for each process that runs tests, in which all modules
are imported already: most of the time of a start, hundreds of times. Everything else, and what looks at the start, at
memory or at the command line itself, gets an interpreter of its own.
"""

import atexit
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.doubles.fork_server import NUMBER, Request

ROOT = Path(__file__).parents[2]
#: `prctl(PR_SET_CHILD_SUBREAPER, …)`. Source: Linux `prctl.h`.
_PR_SET_CHILD_SUBREAPER = 36
#: Variables that an interpreter reads when it starts.
_READ_AT_START = ("PYTHON", "COVERAGE_", "LC_", "LANG", "LD_", "GRPC_")


class ForkServer:
    """A running fork server."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.read_at_start = _read_at_start(os.environ)
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.doubles.fork_server"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
            )
        atexit.register(self._close)

    def _close(self) -> None:
        if self._pid == os.getpid():
            self._socket.close()
            self._process.wait()

    def fork(self, request: Request, streams: Sequence[int]) -> int:
        """Return the number of the new process, which is a child of this one."""
        data = request.encode()
        with self._lock, _adopting_orphans():
            socket.send_fds(self._socket, [NUMBER.pack(len(data))], streams)
            self._socket.sendall(data)
            return int(NUMBER.unpack(self._socket.recv(NUMBER.size))[0])


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(0))


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


class _Forked(subprocess.Popen[Any]):
    """A process that the fork server starts; all else is as `Popen` has it."""

    def _execute_child(self, args: Sequence[str], *others: Any) -> None:
        _, _, _, _, cwd, env, _, _, _, *streams, _, _, _, _, _, new_session, _ = others
        request = Request(args[2], [*args[3:]], dict(env or os.environ), str(cwd or Path.cwd()), new_session)
        child_in, _, _, child_out, _, child_error = streams
        given = [stream if stream != -1 else number for number, stream in enumerate((child_in, child_out, child_error))]
        self.pid = _server().fork(request, given)
        self._child_created = True
        self._close_pipe_fds(*streams)  # type: ignore[attr-defined]


class _Servers:
    running: ForkServer | None = None
    #: How many ask for an interpreter of their own.
    avoided = 0


def _server() -> ForkServer:
    if _Servers.running is None:
        _Servers.running = ForkServer()
    return _Servers.running


@contextmanager
def interpreters_of_their_own() -> Iterator[None]:
    """Start everything by `exec` meanwhile."""
    _Servers.avoided += 1
    try:
        yield
    finally:
        _Servers.avoided -= 1


def start(
    command: Sequence[str],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    start_new_session: bool = False,
    **streams: Any,
) -> "subprocess.Popen[Any]":
    """Start a program; `streams` are those arguments of `subprocess.Popen` that say what its streams are."""
    by_module = tuple(command[:2]) == (sys.executable, "-m") and not _Servers.avoided
    forked = by_module and _read_at_start(env or os.environ) == _server().read_at_start
    popen = _Forked if forked else subprocess.Popen
    return popen(command, cwd=cwd, env=env, start_new_session=start_new_session, **streams)


def is_forked(process: "subprocess.Popen[Any]") -> bool:
    """Tell whether its command line and environment are those of the fork server."""
    return isinstance(process, _Forked)


def run(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end and return what it wrote, as `subprocess.run` does."""
    pipe = subprocess.PIPE
    with start(command, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
