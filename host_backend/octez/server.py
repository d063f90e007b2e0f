"""The server of one of Octez' sockets, with the places and the order of stopping that the HTTP server has."""

import asyncio
import socket

from host_backend.addresses import Address, UnixAddress
from host_backend.api.acceptor import Acceptor
from host_backend.api.forwarded import TrustedProxies
from host_backend.api.left_requests import LeftRequests
from host_backend.api.listeners import STOP_S, address_of_listener
from host_backend.octez.answers import Answers
from host_backend.octez.connection import Clients, OctezConnection


class OctezServer:
    """Serves clients on one listening socket.

    Args:
        answers: Answers requests.
        listener: A listening socket; closed at the end.
        max_connections: Clients at once.
        idle_s: Seconds that a client may be silent after an answer.
    """

    def __init__(self, answers: Answers, listener: socket.socket, *, max_connections: int, idle_s: float) -> None:
        self._answers = answers
        self._listener = listener
        self._max_connections = max_connections
        self._idle_s = idle_s
        self._clients = Clients()
        self._left_requests = LeftRequests()
        self._stop = asyncio.Event()

    @property
    def address(self) -> Address | UnixAddress:
        """Where it listens."""
        return address_of_listener(self._listener)

    def _connection(self) -> OctezConnection:
        return OctezConnection(self._answers, self._idle_s, self._left_requests, self._clients)

    async def serve(self) -> None:
        """Serve until `stop`; then answer those that have asked, for at most `STOP_S`."""
        acceptor = Acceptor(self._listener, self._connection, self._max_connections, None, TrustedProxies())
        await self._stop.wait()
        acceptor.close()
        await acceptor.wait_closed()
        for connection in self._clients:
            connection.shutdown()
        try:
            async with asyncio.timeout(STOP_S):
                await self._clients.wait_until_gone()
        except TimeoutError:
            for connection in self._clients:
                connection.displace()

    def stop(self) -> None:
        """Have `serve` end."""
        self._stop.set()
