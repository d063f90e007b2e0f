"""One HTTP/1.1 request on a connection of its own, and its whole answer; the caller has the time limit over all of it.

No redirections, no proxies, no compression: the answer comes from the address that was asked, or it is none.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11

#: Bytes of an answer's head.
MAX_HEAD_BYTES = 16 * 1024
_READ_BYTES = 16 * 1024


class NoAnswer(Exception):
    """The answer is not whole, or too long; the text says which, and begins with `its answer` or `the connection`."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer, not believed yet."""

    status: int
    reason: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a request goes.

    Attributes:
        host: Its name, or an IP address.
        port: Likewise.
        tls: Which authorities may say that it is this host; None without TLS.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None


async def exchange(
    server: Server, request: h11.Request, body: bytes = b"", *, most_bytes: int = 64 * 1024
) -> HttpAnswer:
    """Return the answer to a request.

    Args:
        server: Where to.
        request: With the header `Connection: close`, and the length of the body where there is one.
        body: Of the request.
        most_bytes: Of the answer's body.

    Raises:
        NoAnswer: It ends too early, or is too long.
        OSError: The server cannot be reached.
        h11.RemoteProtocolError: The answer is not HTTP.
    """
    reader, writer = await asyncio.open_connection(server.host, server.port, ssl=server.tls)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        events: Sequence[h11.Event] = (request, h11.Data(body), h11.EndOfMessage())
        writer.write(b"".join(connection.send(event) or b"" for event in events))
        await writer.drain()
        return await _answer(connection, reader, most_bytes)
    finally:
        # Whatever is still to come is not wanted.
        writer.transport.abort()


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader, most_bytes: int) -> HttpAnswer:
    response: h11.Response | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > most_bytes:
                raise NoAnswer(f"its answer is over {most_bytes} bytes")
        elif isinstance(event, h11.EndOfMessage) and response is not None:
            return HttpAnswer(response.status_code, bytes(response.reason).decode("latin-1"), bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise NoAnswer("the connection ended before the answer")
