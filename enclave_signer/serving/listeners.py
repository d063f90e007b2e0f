"""Where clients come in: TCP, and a Unix socket in a private folder.

Who may connect to a Unix socket is decided three times: by the folder, by the socket's mode, and by the kernel's word
for who has connected. A folder may be opened to others later; a client must be of the daemon's own user, or root.

One daemon has the folder, by a lock on it, until it ends: two that listened one after the other would be two guards.
"""

import errno
import fcntl
import os
import socket
import stat
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trio

from enclave_signer.addresses import Address, UnixAddress, is_loopback
from enclave_signer.errors import AddressUnavailable, ConfigError
from enclave_signer.serving.peers import tcp_peer, unix_peer
from enclave_signer.serving.stream import PlainStream, Stream
from enclave_signer.sparse_log import SparseLog

if TYPE_CHECKING:
    from enclave_signer.serving.tls import TlsServer

#: Clients that the kernel keeps waiting while the loop is busy.
BACKLOG = 512
#: Seconds of silence after which the kernel asks whether the other side still lives.
KEEP_ALIVE_IDLE_S = 60
_ROOT_UID = 0


class Listener(ABC):
    """A listening socket. Use `listen`.

    Args:
        listening: The socket, non-blocking; the listener closes it.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    @property
    @abstractmethod
    def address(self) -> Address | UnixAddress:
        """Where it listens."""

    @abstractmethod
    def _stream(self, connected: socket.socket, address: tuple[str, int]) -> Stream | None:
        """Return the stream on a new socket; None if the client may not connect."""

    async def wait(self) -> None:
        """Wait for a client."""
        await trio.lowlevel.wait_readable(self._listening)

    def accept(self) -> Stream | None:
        """Return the stream of the next client; None if it is gone already, or may not connect.

        Raises:
            OSError: There is no client, or something is exhausted.
        """
        connected, address = self._listening.accept()
        stream = None
        with suppress(OSError):
            connected.settimeout(0)
            stream = self._stream(connected, address)
        if stream is None:
            connected.close()
        return stream

    def close(self) -> None:
        """Take no more clients; may be repeated."""
        self._listening.close()

    def release(self) -> None:  # noqa: B027 -- most have nothing to let go of
        """Let others listen here; all calls are answered."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, and let others listen here."""
        self.close()
        self.release()


class TcpListener(Listener):
    """Clients of a port.

    Args:
        listening: The socket, non-blocking; the listener closes it.
        tls: The enclave's end, where clients speak TLS.
    """

    def __init__(self, listening: socket.socket, tls: "TlsServer | None" = None) -> None:
        super().__init__(listening)
        self._tls = tls
        self._private = is_loopback(self.address.host)

    @property
    def address(self) -> Address:
        """Where it listens, with the port that it got."""
        return Address(*self._listening.getsockname()[:2])

    def _stream(self, connected: socket.socket, address: tuple[str, int]) -> Stream | None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A host that vanished without a word is noticed, although an idle connection has no time limit of ours.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
        peer = tcp_peer(address[0], address[1])
        if self._tls is None:
            return PlainStream(connected, peer, private=self._private)
        from enclave_signer.serving.tls import TlsStream  # noqa: PLC0415 -- most daemons on one machine need none

        return TlsStream(connected, self._tls, peer)


class UnixListener(Listener):
    """Clients of a Unix socket, which is removed at the end.

    Args:
        listening: The socket, bound to the path.
        address: The path.
        uid: Whose processes are let in, besides those of root.
        lock: Keeps the folder for this process while it is open.
    """

    def __init__(self, listening: socket.socket, address: UnixAddress, uid: int, lock: int) -> None:
        super().__init__(listening)
        self._lock = lock
        self._address = address
        self._uid = uid
        self._ours = _identity(address.path)
        self._refusals = SparseLog()

    @property
    def address(self) -> UnixAddress:
        """Where it listens."""
        return self._address

    def _stream(self, connected: socket.socket, address: tuple[str, int]) -> Stream | None:
        del address
        peer, uid = unix_peer(connected)
        if uid in {self._uid, _ROOT_UID}:
            return PlainStream(connected, peer)
        self._refusals.warn("connections of another user refused", source=peer.source)
        return None

    def close(self) -> None:
        """Take no more clients, and remove the socket, unless another one has its place."""
        super().close()
        with suppress(OSError):
            if _identity(self._address.path) == self._ours:
                self._address.path.unlink()

    def release(self) -> None:
        """Let others listen here; all calls are answered."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def listen(address: Address | UnixAddress, tls: "TlsServer | None" = None) -> Listener:
    """Return a listening socket.

    Args:
        address: A port, or a Unix socket, which knows no TLS.
        tls: The enclave's end, where clients of a port speak TLS.

    Raises:
        AddressUnavailable: Another process listens there, or this machine does not have the address yet.
        ConfigError: The address cannot be used.
    """
    try:
        if isinstance(address, UnixAddress):
            return _listen_unix(address)
        return _listen_tcp(address, tls)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        unavailable = getattr(error, "errno", None) in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}
        kind = AddressUnavailable if unavailable else ConfigError
        raise kind(f"cannot listen on {address}: {reason}") from error


def _listen_tcp(address: Address, tls: "TlsServer | None") -> TcpListener:
    ((family, kind, protocol, _, resolved), *_) = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.settimeout(0)
        listening.bind(resolved)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return TcpListener(listening, tls)


def _listen_unix(address: UnixAddress) -> UnixListener:
    uid = os.geteuid()
    _make_private(address, uid)
    lock = _locked(address)
    try:
        _remove_stale(address)
        return UnixListener(_bound(address), address, uid, lock)
    except BaseException:
        os.close(lock)
        raise


def _locked(address: UnixAddress) -> int:
    """Return what keeps the folder for this process while it is open.

    Raises:
        ConfigError: Another process has it.
    """
    lock = os.open(address.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AddressUnavailable(f"cannot listen on {address}: another process is listening in that folder") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _bound(address: UnixAddress) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    # From the start no other user may connect, even if the folder changes.
    mask = os.umask(0o177)
    try:
        listening.settimeout(0)
        listening.bind(str(address.path))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


def _make_private(address: UnixAddress, uid: int) -> None:
    """Make the folder of a socket if it is not there, and check that it is private.

    Raises:
        ConfigError: It is another user's, or others can enter it.
        OSError: It cannot be made.
    """
    folder = address.path.parent
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        whose = "is not a folder"
    elif found.st_uid != uid:
        whose = f"belongs to the user {found.st_uid}, not to {uid}, the user of this program"
    elif found.st_mode & 0o077:
        whose = "can be entered by others"
    else:
        return
    raise ConfigError(
        f"cannot listen on {address}: the folder {folder} {whose}: name one that only this program uses, with mode 0700"
    )


def _remove_stale(address: UnixAddress) -> None:
    """Remove the socket of a daemon that did not end in order: one without a listener, nothing else.

    Raises:
        ConfigError: Something else is there.
    """
    try:
        mode = address.path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot listen on {address}: the file there is not a socket: name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        # A full line of waiting clients is an answer, too: somebody is listening.
        probe.settimeout(0)
        code = probe.connect_ex(str(address.path))
    if code != errno.ECONNREFUSED:
        raise AddressUnavailable(f"cannot listen on {address}: another process is listening there")
    address.path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino
