"""A server with our protocol and a small application, for what one client can do to it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from host_backend.api.known_heads import KnownHeadsProtocol

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
#: More than the kernel keeps for a client that does not read.
LARGE_BYTES = 32 * 1024 * 1024


class Hasty(KnownHeadsProtocol):
    """Closes incomplete requests as soon as the loop has looked at its sockets a few times."""

    request_s = 0.02
    write_s = 0.02
    made: "list[Hasty]"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.append(self)
        self.lost = asyncio.Event()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class Patient(Hasty):
    """Closes nothing for its time."""

    request_s = 600.0
    write_s = 600.0


class Unread(Patient):
    """Leaves soon clients that do not read their answers."""

    write_s = 0.02


class Restless(Patient):
    """Leaves idle clients soon."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.timeout_keep_alive = 0.05  # type: ignore[assignment]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse every body over a kilobyte, as the routes do, without waiting for its end; `/large` has a large answer."""
    size, more = 0, True
    while more and size < 1024:
        event = await receive()
        size += len(event.get("body", b""))
        more = event.get("more_body", False)
    status = 200 if size < 1024 else 413
    body = bytes(LARGE_BYTES) if scope["path"] == "/large" else b"ok"
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body})


TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def serve(protocol: type[Hasty], scenario: Callable[[Connect], Awaitable[None]], answers: ASGIApp = app) -> list[Hasty]:
    """Run a scenario against a server; return the server's side of every connection."""
    protocol.made = []
    config = uvicorn.Config(answers, http=protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
        (listener,) = server.sockets
        port = listener.getsockname()[1]
        streams: list[asyncio.StreamWriter] = []

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            streams.append(writer)
            return reader, writer

        try:
            async with asyncio.timeout(60):
                await scenario(connect)
        finally:
            server.close()
            for writer in streams:
                writer.close()
            # A connection that was accepted a moment before is made in the next turns.
            for _ in range(3):
                await asyncio.sleep(0)
            for connection in list(state.connections):
                connection.transport.abort()

    asyncio.run(run())
    return protocol.made


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return everything until the server ends the connection, by a reset or not."""
    data = b""
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            data += part
    return data


async def speaks(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with method, path, body and headers of what came."""
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        more = event["more_body"]
    words = b" ".join((scope["method"].encode(), scope["raw_path"], body, *(name for name, _ in scope["headers"])))
    headers = [(b"content-length", str(len(words)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": words})


def pieces(data: bytes, sizes: int) -> list[bytes]:
    return [data[place : place + sizes] for place in range(0, len(data), sizes)]


async def send_in_pieces(writer: asyncio.StreamWriter, data: bytes, size: int) -> None:
    for piece in pieces(data, size):
        writer.write(piece)
        await writer.drain()
