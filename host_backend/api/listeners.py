"""Where clients come in: TCP and Unix sockets, TLS on them, and the HTTP server behind."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from host_backend.addresses import Address, UnixAddress
from host_backend.api.acceptor import Acceptor
from host_backend.api.forwarded import TrustedProxies
from host_backend.api.http_protocol import HttpProtocol
from host_backend.api.known_heads import KnownHeads, KnownHeadsProtocol
from host_backend.api.left_requests import LeftRequests
from host_backend.config import TlsConfig
from host_backend.durable import LockHeld, locked_among_others
from host_backend.errors import ConfigError, StateConflict, reason_of

logger = logging.getLogger(__name__)

#: Seconds for requests under way at a stop.
STOP_S = 10
#: Seconds that an idle client connection is kept.
KEEP_ALIVE_S = 75
#: Clients that the kernel keeps waiting while the loop is busy.
BACKLOG = 512
#: Who may connect to a Unix socket: the owner's processes, and those of its group.
UNIX_SOCKET_MODE = 0o660


@contextmanager
def listening(address: Address | UnixAddress) -> Iterator[socket.socket]:
    """Listen while inside.

    Raises:
        ConfigError: The address cannot be had.
    """
    if isinstance(address, Address):
        with bind(address) as listener:
            yield listener
        return
    with _kept(address), _bind_unix(address) as listener:
        ours = _identity(address)
        try:
            yield listener
        finally:
            # Another process may have taken the path since.
            if _identity(address) == ours:
                address.path.unlink(missing_ok=True)


@contextmanager
def _kept(address: UnixAddress) -> Iterator[None]:
    """Keep the path for this process: of two that start at once, one would remove the socket of the other as stale.

    Raises:
        ConfigError: Another process has it.
    """
    # Beside the socket, not on its folder, which may be shared.
    lock = address.path.with_name(f"{address.path.name}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(locked_among_others(lock))
        except LockHeld as error:
            raise StateConflict(f"cannot listen on {address}: another process is listening there") from error
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}: {lock}: {reason_of(error)}") from error
        yield


def bind(address: Address) -> socket.socket:
    """Return a listening TCP socket.

    Raises:
        ConfigError: The address cannot be had.
    """
    try:
        if address.host:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", address.port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise _unavailable(address, error) from error


def _unavailable(address: Address | UnixAddress, error: OSError) -> ConfigError:
    """Return what to raise for an address: another program has it or this machine does not (yet), or it cannot be used."""
    kind = StateConflict if error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL} else ConfigError
    return kind(f"cannot listen on {address}: {reason_of(error)}")


def _bind_unix(address: UnixAddress) -> socket.socket:
    _remove_stale(address)
    listener = socket.socket(socket.AF_UNIX)
    # No other user may connect between bind and chmod.
    mask = os.umask(0o777 & ~UNIX_SOCKET_MODE)
    try:
        listener.bind(str(address.path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _unavailable(address, error) from error
    finally:
        os.umask(mask)
    return listener


def _remove_stale(address: UnixAddress) -> None:
    """Remove what a host left behind that did not end in order: a socket on which no process listens, nothing else.

    Raises:
        ConfigError: Something else is there.
    """
    try:
        mode = address.path.lstat().st_mode
    except OSError:
        # Not there, or binding will say why not.
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot listen on {address}: the file there is not a socket: name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        # A full line of waiting clients is an answer, too: a process is listening.
        probe.settimeout(0)
        code = probe.connect_ex(str(address.path))
    if code != errno.ECONNREFUSED:
        raise StateConflict(f"cannot listen on {address}: another process is listening there")
    with suppress(OSError):
        address.path.unlink()


def _identity(address: UnixAddress) -> tuple[int, int] | None:
    try:
        found = address.path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def address_of_listener(listener: socket.socket) -> Address | UnixAddress:
    """Return where a socket listens."""
    name = listener.getsockname()
    return UnixAddress(Path(name)) if listener.family == socket.AF_UNIX else Address(*name[:2])


def tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """Return what a server needs to speak TLS 1.2 or later, and to ask clients for certificates where that is configured.

    Raises:
        ConfigError: A file cannot be used; the text names it, and nothing that is in it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in filter(None, (tls.certificate, tls.key, tls.client_ca)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"server.tls: {file} cannot be read: {reason_of(error)}") from error
    try:
        # Without a password, or a question for one would wait for a person.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"server.tls: {tls.certificate} and {tls.key} must be a certificate in PEM form and its key, not encrypted"
        ) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"server.tls.client_ca: {tls.client_ca} has no certificates in PEM form") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class HttpServer(uvicorn.Server):
    """uvicorn on one listening socket, without its signal handlers: signals belong to the composition root.

    Args:
        app: Answers.
        listener: A listening socket; closed at the end.
        max_connections: Clients at once.
        tls: What TLS needs; None: none.
        proxies: Who is believed when it names others as clients.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        *,
        max_connections: int,
        tls: ssl.SSLContext | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        # It tells of its life cycle, and warns of what clients send; ours say what matters.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        settings = uvicorn.Config(
            app,
            interface="asgi3",
            http=KnownHeadsProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
        )
        super().__init__(settings)
        self._listener = listener
        self._max_connections = max_connections
        self._tls = tls
        self._proxies = proxies or TrustedProxies()
        #: What bounds the requests of those that have left; places bound the clients.
        self.left_requests = LeftRequests()
        #: Of requests that came before.
        self.known_heads = KnownHeads()

    @property
    def address(self) -> Address | UnixAddress:
        """Where it listens."""
        return address_of_listener(self._listener)

    def stop(self) -> None:
        """Have `serve` end: take no more clients, answer those that have asked."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield

    def _protocol(self) -> HttpProtocol:
        protocol = KnownHeadsProtocol(self.config, self.server_state, self.lifespan.state)
        protocol.heads = self.known_heads
        protocol.proxies = self._proxies
        protocol.left_requests = self.left_requests
        return protocol

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take clients in, by our own rules."""
        del sockets
        acceptor = Acceptor(self._listener, self._protocol, self._max_connections, self._tls, self._proxies)
        # uvicorn closes it, and waits for it.
        self.servers = cast("list[asyncio.Server]", [acceptor])
        self.started = True
