"""Takes clients in, and counts them from their first packet on.

A loop's own servers tell of a TLS client when its handshake has ended. Until then it would count nowhere, and strangers
who never end theirs would take every file descriptor. Who gives up his place for a newcomer is in `places`.

A handshake takes a millisecond, for which all others wait. So it begins when the client's first record is there whole,
one in a millisecond, addresses in turn: strangers might connect in peace, or send all but its end, and then go on at once.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from host_backend import log
from host_backend.api.beginning import PAUSE_S, Line
from host_backend.api.forwarded import TrustedProxies
from host_backend.api.peer import Peer, address_of, source_of, user_of
from host_backend.api.places import Client, Place, Places
from host_backend.errors import reason_of
from host_backend.sparse_log import SparseLog

logger = logging.getLogger(__name__)

#: Seconds for a TLS handshake, a few packets, once it has begun; and as many until it does.
HANDSHAKE_S = 10
#: Handshakes that begin before the next pause: with a key of RSA one takes 1.5 ms.
HANDSHAKES_PER_PAUSE = 1
#: Bytes in front of a record of TLS, and the kind of those of a handshake. Source: RFC 8446, 5.1.
RECORD_HEADER_BYTES, HANDSHAKE_RECORD = 5, 22
#: Seconds until clients are taken again when there was no file descriptor for one.
RETRY_S = 1.0
#: Seconds that a newcomer waits for a place where answers are due to all: most are there within milliseconds.
PATIENCE_S = 1.0
#: Seconds between two looks whether there is one; each takes half a millisecond.
LOOK_S = 0.01


class Connection(Client, Protocol):
    """What serves one client: an `asyncio.Protocol`, to which this is given before it begins."""

    #: Where the client comes from.
    peer: Peer
    #: Its place among the clients.
    place: Place[Any] | None
    #: Ends what comes before the beginning.
    abandon: Callable[[], object]

    @property
    def has_begun(self) -> bool:
        """Whether there is a connection, with TLS if that is wanted."""
        ...


class Acceptor:
    """Takes clients in on one socket; made inside the event loop, it begins at once.

    Args:
        listener: Listens; closed with this.
        connection: Makes what serves one client.
        max_connections: Clients at once, from their first packet on.
        tls: What TLS needs; None: none.
        proxies: Who is believed when it names others as clients.
    """

    def __init__(
        self,
        listener: socket.socket,
        connection: Callable[[], Connection],
        max_connections: int,
        tls: ssl.SSLContext | None,
        proxies: TrustedProxies,
    ) -> None:
        self._listener = listener
        self._connection = connection
        self._tls = tls
        self._proxies = proxies
        self._places: Places[Connection] = Places(max_connections, self._displaced)
        self._displacements = SparseLog()
        self._refusals = SparseLog()
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        #: A newcomer that waits for a place.
        self._held: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._handshakes = Line(HANDSHAKES_PER_PAUSE, partial(self._loop.call_later, PAUSE_S))
        listener.settimeout(0)
        self._resume()

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        """Take one client: those who are served have their turn before the next one."""
        try:
            client, name = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has left
        except OSError as error:
            logger.error("no client can be accepted: %s", reason_of(error))  # noqa: TRY400 -- known, and said in words
            self._loop.remove_reader(self._listener)
            self._retry = self._loop.call_later(RETRY_S, self._resume)
            return
        connection = self._connection()
        connection.peer = self._peer(client, name)
        self._admit(client, connection, self._loop.time() + PATIENCE_S)

    def _admit(self, client: socket.socket, connection: Connection, until: float) -> None:
        """Give a newcomer a place; one whose address has no share yet waits for it, and so do those behind it."""
        now, network = self._loop.time(), connection.peer.network
        place = connection.place = self._places.enter(connection, network, now)
        if place is None and now < until and not self._places.has_share(network):
            self._loop.remove_reader(self._listener)
            self._held = client
            self._retry = self._loop.call_later(LOOK_S, self._admit, client, connection, until)
            return
        if self._held is not None:
            self._held = None
            self._resume()
        if place is None:
            text = "clients turned away: answers are due to all others"
            self._refusals.warn(text, limit=self._places.limit, source=connection.peer.source)
            client.close()
            return
        task = self._loop.create_task(self._begin(client, connection, place))
        connection.abandon = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _peer(self, client: socket.socket, name: object) -> Peer:
        found = address_of(name)
        if found is None:
            return Peer(user_of(client))
        return Peer(source_of(found), *found, is_proxy=self._proxies.trusts(found[0]))

    def _displaced(self, connection: Connection) -> None:
        self._displacements.warn(
            "clients that were silent longest closed for newcomers",
            limit=self._places.limit,
            source=connection.peer.source,
        )

    async def _begin(self, client: socket.socket, connection: Connection, place: Place[Connection]) -> None:
        # All that is called for the client from now on, timers and requests among it, is called in this context.
        log.adds(source=connection.peer.source)
        client.settimeout(0)
        handshake_s = None if self._tls is None else HANDSHAKE_S
        try:
            if self._tls is not None:
                await self._handshake_begins(client, connection.peer.address)
            await self._loop.connect_accepted_socket(
                lambda: cast("asyncio.Protocol", connection), client, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )
        except OSError as error:
            # Errors of TLS and of time are among these.
            # Probes connect and leave, every few seconds, for ever.
            level = logging.DEBUG if isinstance(error, ConnectionResetError) else logging.INFO
            logger.log(level, "connection closed: it did not begin: %s", error)
        finally:
            if not connection.has_begun:
                place.leave()

    async def _handshake_begins(self, client: socket.socket, address: str) -> None:
        """Wait for the first record of a client, and then for its turn; if either does not come, close its socket."""
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._first_record(client)
                if not self._handshakes.begins():
                    await self._handshakes.turn(address)
        except TimeoutError:
            client.close()
            raise TimeoutError(f"no TLS handshake within {HANDSHAKE_S} s") from None
        except (OSError, asyncio.CancelledError):
            client.close()
            raise

    async def _first_record(self, client: socket.socket) -> None:
        """Wait until it is there whole, or is none."""
        await self._readable(client, RECORD_HEADER_BYTES)
        header = client.recv(RECORD_HEADER_BYTES, socket.MSG_PEEK)
        if len(header) == RECORD_HEADER_BYTES and header[0] == HANDSHAKE_RECORD:
            await self._readable(client, RECORD_HEADER_BYTES + int.from_bytes(header[-2:]))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    async def _readable(self, client: socket.socket, size: int) -> None:
        """Wait for so many bytes, or the end."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        said = asyncio.Event()
        self._loop.add_reader(client, said.set)
        try:
            await said.wait()
        finally:
            self._loop.remove_reader(client)

    def close(self) -> None:
        """Take no more clients, and leave those whose handshake has not ended."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        if self._held is not None:
            self._held.close()
        if self._tls is not None:
            # Without TLS they have begun within a pass; uvloop would tell a connection of its beginning, and not of its end.
            for task in self._tasks:
                task.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until no connection is beginning any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
