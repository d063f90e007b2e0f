"""Where clients come in: TCP, and a Unix socket in a private folder.

Who may connect to a Unix socket is decided three times: by the folder, by the socket's mode, and by the kernel's word
for who has connected. A folder may be opened to others later; a client must be of the daemon's own user, or root.

One daemon has the folder, by a lock on it, until it ends: two that listened one after the other would be two guards.
"""

import errno
import os
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import trio

from enclave_signer.addresses import Address, UnixAddress, is_loopback
from enclave_signer.errors import AddressUnavailable, ConfigError
from enclave_signer.rights import Rules
from enclave_signer.rights_config import UnixSocketConfig
from enclave_signer.serving import unix_folder
from enclave_signer.serving.local_clients import UnknownClient, WatchedStream, local_client
from enclave_signer.serving.peers import Peer, tcp_peer, unix_peer
from enclave_signer.serving.stream import PlainStream, Stream
from enclave_signer.sparse_log import SparseLog

if TYPE_CHECKING:
    from enclave_signer.serving.tls import TlsServer

#: Seconds of silence after which the kernel asks whether the other side still lives.
KEEP_ALIVE_IDLE_S = 60
_ROOT_UID = 0
#: Out of file descriptors or memory: wait for connections to end, then accept again.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_PAUSE_S = 0.1


class Listener(ABC):
    """A listening socket. Use `listen`.

    Args:
        listening: The socket, non-blocking; the listener closes it.
    """

    #: Whether rules say what its clients may do.
    by_rules = False
    #: Among how many the places are divided; None: among addresses, however many there are.
    shares: int | None = None

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
        self.by_rules = tls is not None and tls.rules is not None
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
        self._ours = unix_folder.identity(address.path)
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
            if unix_folder.identity(self._address.path) == self._ours:
                self._address.path.unlink()

    def release(self) -> None:
        """Let others listen here; all calls are answered."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


class RuledUnixListener(UnixListener):
    """Clients of a Unix socket that may do what rules let them; takes what `UnixListener` does, and the rules."""

    by_rules = True

    def __init__(self, listening: socket.socket, address: UnixAddress, uid: int, lock: int, rules: Rules) -> None:
        super().__init__(listening, address, uid, lock)
        self._rules = rules
        self.shares = len(rules)
        self._writers = SparseLog()

    def _stream(self, connected: socket.socket, address: tuple[str, int]) -> Stream | None:
        del address
        try:
            source, client, credentials = local_client(connected, with_cgroup=self._rules.ask_for_cgroups)
        except UnknownClient as unknown:
            self._refusals.warn("connections refused", source=unknown.source, why=str(unknown))
            return None
        rights = self._rules.rights_of(client)
        if rights is None:
            self._refusals.warn("connections refused", source=source, why="no rule of the image names this client")
            return None
        # The clients of one rule cannot take the places of the others.
        peer = Peer(source, f"rule {rights.rule}")
        return WatchedStream(connected, peer, rights, credentials, self._refuse_writer)

    def _refuse_writer(self, peer: Peer, why: str) -> None:
        self._writers.warn("connections ended", source=peer.source, why=why)


async def rest_if_exhausted(error: OSError, exhaustions: SparseLog) -> None:
    """Wait for connections to end, where it is for want of something that `Listener.accept` gave no client."""
    if error.errno in _EXHAUSTED:
        exhaustions.warn(f"cannot accept connections: {error.strerror}")
        await trio.sleep(_EXHAUSTED_PAUSE_S)


def listen(
    address: Address | UnixAddress,
    tls: "TlsServer | None" = None,
    *,
    access: UnixSocketConfig | None = None,
    rules: Rules | None = None,
) -> Listener:
    """Return a listening socket.

    Args:
        address: A port, or a Unix socket, which knows no TLS.
        tls: The enclave's end, where clients of a port speak TLS.
        access: Who can reach a Unix socket for which there are rules; None: this user alone.
        rules: What clients of a Unix socket may do; None: everything.

    Raises:
        AddressUnavailable: Another process listens there, or this machine does not have the address yet.
        ConfigError: The address cannot be used.
    """
    try:
        if isinstance(address, UnixAddress):
            return _listen_unix(address, access, rules)
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
        listening.listen(unix_folder.BACKLOG)
    except BaseException:
        listening.close()
        raise
    return TcpListener(listening, tls)


def _listen_unix(address: UnixAddress, access: UnixSocketConfig | None, rules: Rules | None) -> UnixListener:
    uid = os.geteuid()
    if rules is None:
        unix_folder.make_private(address, uid)
    else:
        access = access or UnixSocketConfig()
        unix_folder.make_shared(address, uid, access)
    lock = unix_folder.lock(address)
    try:
        unix_folder.remove_stale(address)
        listening = unix_folder.bound(address, access)
        if rules is not None:
            return RuledUnixListener(listening, address, uid, lock, rules)
        return UnixListener(listening, address, uid, lock)
    except BaseException:
        os.close(lock)
        raise
