"""A server of asyncio that ends with all its connections, those included that were accepted a moment before.

`asyncio.start_server` leaves a connection open whose handler was cancelled before its first step; the garbage collector
then finds the socket in the middle of another test.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import cast

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class AsyncioServer:
    """Serves each connection with a handler, until it is closed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        """Accept connections on a port of loopback; 0 for a free one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Protocol(self, loop), "127.0.0.1", port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and cut all connections off."""
        assert self._server is not None
        self._server.close()
        for transport in list(self._open):
            _abort(transport)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._handler(reader, writer)

    def made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(transport)
        if self._server is not None and not self._server.is_serving():
            _abort(transport)

    def lost(self, transport: asyncio.BaseTransport) -> None:
        self._open.discard(transport)


class _Protocol(asyncio.StreamReaderProtocol):
    def __init__(self, server: AsyncioServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(asyncio.StreamReader(loop=loop), server.serve, loop=loop)
        self._owner = server
        self._made: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made = transport
        super().connection_made(transport)
        self._owner.made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._made is not None:
            self._owner.lost(self._made)


def _abort(transport: asyncio.BaseTransport) -> None:
    # uvloop's transports are of a class of their own.
    cast("asyncio.Transport", transport).abort()
