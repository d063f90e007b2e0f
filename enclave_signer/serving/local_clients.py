"""Clients of a Unix socket for which there are rules: who they are, as the kernel says, and a stream that is theirs alone.

- Who has connected is what the kernel wrote down when it did (`SO_PEERCRED`): process, effective user and group. Its control
  group is read while a descriptor of the process (`SO_PEERPIDFD`) shows that it is still the same one.
- Each message comes with who wrote it (`SO_PASSCRED`): process, real user and group. Another process that was given
  the descriptor, a child, and one that has changed its user, are another writer, and end the connection.
- One that was given the descriptor and only reads cannot be seen.
- A user of another user namespace, who is not mapped into this one's, looks like any other such user, and has no rights.
"""

import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from enclave_signer.errors import ConfigError
from enclave_signer.rights import Client, Rights
from enclave_signer.serving.peers import CREDENTIALS, Peer
from enclave_signer.serving.stream import FIRST_READ_BYTES, PlainStream

#: Source: Linux `asm-generic/socket.h`; Python does not name them. The second one needs Linux 6.5.
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
#: Python's `getsockopt` has room for so many; with more supplementary groups a client fulfils no condition on them.
_MAX_GROUPS_BYTES = 1024
#: Lines of version 1 and the one of version 2; a path has at most 4096 bytes.
_MAX_CGROUP_BYTES = 65536
#: What stands for users and groups that are not mapped. Source: `user_namespaces(7)`.
_UNMAPPED = 65534
#: Room for the credentials of a message and nothing else: descriptors beside them are closed by the kernel.
_ANCILLARY_BYTES = socket.CMSG_SPACE(CREDENTIALS.size)

#: Called with a client whose connection has another writer, and who that is.
OnWriter = Callable[[Peer, str], None]


class UnknownClient(Exception):
    """The kernel does not say who a client is.

    Attributes:
        source: How the log calls it.
    """

    def __init__(self, source: str, why: str) -> None:
        super().__init__(why)
        self.source = source


def require_cgroups() -> None:
    """Return when control groups of clients can be known here.

    Raises:
        ConfigError: They cannot: an older Linux, or no control groups of version 2.
    """
    first, second = socket.socketpair()
    with first, second:
        try:
            os.close(_pidfd(first))
        except OSError as error:
            raise ConfigError(f"rights: cgroup: needs Linux 6.5 or later: {error.strerror}") from error
    if _cgroup_of(os.getpid()) is None:
        raise ConfigError("rights: cgroup: needs control groups of version 2, and this process has none")


def local_client(connected: socket.socket, *, with_cgroup: bool) -> tuple[str, Client, bytes]:
    """Return how the log calls who has connected, who it is, and the credentials that each of its messages must come with.

    Args:
        connected: The socket.
        with_cgroup: Whether its control group matters.

    Raises:
        UnknownClient: The kernel does not say who it is.
        OSError: It is gone.
    """
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, gid = CREDENTIALS.unpack(credentials)
    source = f"unix:uid={uid},gid={gid},pid={pid}"
    if not pid:
        raise UnknownClient(source, "its process is in another PID namespace: run both in one")
    if uid == _unmapped("overflowuid") or gid == _unmapped("overflowgid"):
        raise UnknownClient(source, "its user or group is not mapped into the user namespace of this program")
    cgroup = _cgroup_while_it_lives(connected, pid) if with_cgroup else None
    return source, Client(uid=uid, gid=gid, groups=_groups(connected), cgroup=cgroup), credentials


@cache
def _unmapped(name: str) -> int:
    try:
        return int(Path("/proc/sys/kernel", name).read_text())
    except (OSError, ValueError):
        return _UNMAPPED


def _groups(connected: socket.socket) -> frozenset[int]:
    try:
        groups = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS_BYTES)
    except OSError:
        return frozenset()
    return frozenset(group for (group,) in struct.iter_unpack("=I", groups))


def _pidfd(connected: socket.socket) -> int:
    return int.from_bytes(connected.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4), sys.byteorder)


def _cgroup_while_it_lives(connected: socket.socket, pid: int) -> str | None:
    """Return the control group of the process that connected; None if it has ended, and its number may be another's."""
    try:
        pidfd = _pidfd(connected)
    except OSError:
        return None
    try:
        cgroup = _cgroup_of(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return None if poll.poll(0) else cgroup
    finally:
        os.close(pidfd)


def _cgroup_of(pid: int) -> str | None:
    try:
        with Path(f"/proc/{pid}/cgroup").open("rb") as file:
            # Names may have every other character that ends a line for `str.splitlines`.
            lines = file.read(_MAX_CGROUP_BYTES).split(b"\n")
    except OSError:
        return None
    return next((os.fsdecode(line.removeprefix(b"0::")) for line in lines if line.startswith(b"0::")), None)


class WatchedStream(PlainStream):
    """A connected Unix socket on which one process writes.

    Args:
        connected: The socket, non-blocking; the stream closes it.
        peer: The process.
        rights: What it may do.
        credentials: What each of its messages comes with.
        on_writer: Called when another one has written.
    """

    __slots__ = ("_expected", "_on_writer", "rights")

    def __init__(
        self, connected: socket.socket, peer: Peer, rights: Rights, credentials: bytes, on_writer: OnWriter
    ) -> None:
        super().__init__(connected, peer)
        self.rights: Rights | None = rights
        self._expected = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)]
        self._on_writer = on_writer

    def receive(self, most: int) -> bytes | None:
        """Return what has come; see `Stream`.

        Raises:
            OSError: Another process has written, or this one sends descriptors.
        """
        data = self._own_words(min(most, FIRST_READ_BYTES))
        if data is not None and len(data) == FIRST_READ_BYTES < most:
            data += self._rest(most - FIRST_READ_BYTES)
        return data

    def _rest(self, most: int) -> bytes:
        return self._own_words(most) or b""

    def _own_words(self, most: int) -> bytes | None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(most, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        if data and (ancillary != self._expected or flags & socket.MSG_CTRUNC):
            why = _writer(ancillary) if ancillary != self._expected else "the client sends file descriptors"
            self._on_writer(self.peer, why)
            raise PermissionError(f"not the client's own words: {why}")
        return data


def _writer(ancillary: list[tuple[int, int, bytes]]) -> str:
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS and len(data) == CREDENTIALS.size:
            pid, uid, gid = CREDENTIALS.unpack(data)
            return f"another process writes, or the same as another user: uid={uid},gid={gid},pid={pid}"
    return "a message came without its writer"
