"""What one HTTP client can take of the host: bytes, time, requests that wait."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from host_backend.api.http_framing import MAX_CHUNK_LINE_BYTES, MAX_CHUNKS, MAX_HEAD_BYTES
from host_backend.api.http_protocol import MAX_REQUEST_BYTES, MAX_WAITING, HttpProtocol

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
#: More than the kernel keeps for a client that does not read.
LARGE_BYTES = 32 * 1024 * 1024


class Hasty(HttpProtocol):
    """Closes what is incomplete as soon as the loop has looked at its sockets a few times."""

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

    request_s = 600
    write_s = 600


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
            for writer in streams:
                writer.close()
            server.close()

    asyncio.run(run())
    return protocol.made


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return everything until the server ends the connection, by a reset or not."""
    data = b""
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            data += part
    return data


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        REQUEST[:-2],
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n12345678",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ],
)
def test_a_request_that_is_never_complete(sent: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(sent)
        assert await rest(reader) == b""

    serve(Hasty, scenario)


@pytest.mark.parametrize("sent", [b"G", REQUEST[:-1], b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"])
def test_a_second_request_that_is_never_complete(sent: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        writer.write(sent)
        assert await rest(reader) == b""

    serve(Hasty, scenario)


def test_an_idle_client_that_was_served_is_kept() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(REQUEST)
            await reader.readuntil(b"ok")
            # Another client is closed for its time meanwhile.
            assert await rest((await connect())[0]) == b""

    serve(Hasty, scenario)


@pytest.mark.parametrize("line", [b"a: b\r\n", b"a: " + b"b" * 1000 + b"\r\n"])
def test_a_head_beyond_the_limit(line: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n" + line * (MAX_HEAD_BYTES // len(line) + 1))
        assert await rest(reader) == TOO_LARGE

    serve(Patient, scenario)


def test_a_path_beyond_the_limit() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET /" + b"a" * MAX_HEAD_BYTES)
        assert (await rest(reader)).startswith(b"HTTP/1.1 431 ")

    serve(Patient, scenario)


TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES, 2 * MAX_HEAD_BYTES, 8 * MAX_HEAD_BYTES])
@pytest.mark.parametrize("name", [b"a", b"b" * 60])
def test_a_whole_head_beyond_the_limit(size: int, name: bytes) -> None:
    line = name + b": " + b"v" * 100 + b"\r\n"

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n" + line * (size // (len(line) - 4) + 1) + b"\r\n")
        assert await rest(reader) == TOO_LARGE

    serve(Patient, scenario)


def test_a_refusal_out_of_turn_is_not_taken_for_an_answer() -> None:
    async def scenario(connect: Connect) -> None:
        for second in (b"GET /" + b"a" * 2 * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", b"this is no HTTP\r\n\r\n"):
            reader, writer = await connect()
            writer.write(REQUEST + second)
            assert await rest(reader) == b""

    serve(Patient, scenario)


def test_requests_sent_ahead_are_answered_in_turn() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(REQUEST * (MAX_WAITING + 1))
            for _ in range(MAX_WAITING + 1):
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")

    serve(Patient, scenario)


def test_every_request_of_a_lost_connection_hears_of_it() -> None:
    ended = asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        ended.set()

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST * (MAX_WAITING + 2))
        assert await rest(reader) == b""
        await ended.wait()

    (connection,) = serve(Patient, scenario, waiting)
    assert not connection.pipeline
    assert connection._write_timer is None


def test_too_many_requests_sent_ahead_end_the_connection() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST * (MAX_WAITING + 2))
        assert await rest(reader) == b""

    (connection,) = serve(Patient, scenario)
    assert connection.transport.is_closing()


@pytest.mark.parametrize("last", [b"", b"Connection: close\r\n"])
def test_a_client_that_does_not_read(last: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        _, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: h\r\n" + last + b"\r\n")
        # Another client is served, so that the first one is being answered.
        reader, writer = await connect()
        writer.write(REQUEST)
        await reader.readuntil(b"ok")
        await Hasty.made[0].lost.wait()

    serve(Hasty, scenario)


def test_heads_within_the_limit_one_after_the_other() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(5):
            writer.write(REQUEST[:-2] + b"a: " + b"b" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")

    serve(Patient, scenario)


def test_a_request_without_end() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"400\r\n" + bytes(1024) + b"\r\n"
        with suppress(ConnectionError):
            for _ in range(2 * MAX_REQUEST_BYTES // 1024):
                writer.write(chunk)
                await writer.drain()
        assert (await rest(reader)).count(b"HTTP/1.1 ") <= 1

    (connection,) = serve(Patient, scenario)
    assert connection.transport.is_closing()


def test_a_refused_body_that_ends_leaves_the_connection_usable() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000))
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 413 ")
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")

    serve(Patient, scenario)


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


OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    b"connection:upgrade\r\nUPGRADE:websocket\r\n",
    b"Upgrade: TLS/1.2\r\nConnection: keep-alive, Upgrade\r\n",
    b"Connection: Upgrade\r\nuPgRaDe: foo\r\nUpgrade:\r\n",
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_offer_of_another_protocol_is_ignored(offer: bytes, size: int) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for body in (b"", b'"03"', REQUEST, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            framing = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body) or 1, body or b"x")
            for end, sent in ((framing, body), (chunks, body or b"x")):
                await send_in_pieces(writer, b"POST /a HTTP/1.1\r\nHost: h\r\n" + offer + end, size)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                words = await reader.readexactly(length)
                assert words.startswith(b"POST /a " + sent + b" host")
                assert b"upgrade" not in words

    (connection,) = serve(Patient, scenario, speaks)
    assert not connection.transport.is_closing() or connection.lost.is_set()


def test_a_proxy_is_asked_for_in_vain() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n" + REQUEST)
        answer = await rest(reader)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.endswith(b"\r\n\r\nthis is no proxy")

    serve(Patient, scenario, speaks)


@pytest.mark.parametrize("expects", [b"100-continue", b"100-Continue"])
def test_a_client_that_waits_to_be_told_to_go_on(expects: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: " + expects + b"\r\nContent-Length: 2\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"go")
            assert (await reader.readuntil(b"POST /a go")).startswith(b"HTTP/1.1 200 OK\r\n")
            await reader.readuntil(b"content-length")

    serve(Patient, scenario, speaks)


@pytest.mark.parametrize("size", [1, 10_000])
def test_trailers_are_no_headers(size: int) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        await send_in_pieces(writer, head + b'2;a="b"\r\nok\r\n0;c\r\nAuthorization: x\r\n\r\n' + REQUEST, size)
        assert (await reader.readuntil(b"GET /")).endswith(
            b"\r\n\r\nPOST /a ok host transfer-encodingHTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nGET /"
        )

    serve(Patient, scenario, speaks)


HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\r\n" + REQUEST, b"this is no request of HTTP/1.1"),
        (b"GET / RTSP/1.0\r\n\r\n", b"this is no request of HTTP/1.1"),
        (b"GET  / HTTP/1.1\r\n", b"this is no request of HTTP/1.1"),
        (b"GET /\r\n", b"this is no request of HTTP/1.1"),
        (b"GET / HTTP/1.1\nHost: h\n", b"this is no request of HTTP/1.1"),
        (b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", b"this is no request of HTTP/1.1"),
        (b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", b"this is no request of HTTP/1.1"),
        (HEAD + b"A: b\n", b"headers are malformed"),
        (HEAD + b"A: b\r\n c\r\n\r\n", b"headers are malformed"),
        (HEAD + b"A : b\r\n\r\n", b"headers are malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", b"Host must be given once"),
        (b"GET / HTTP/1.0\r\nHost: h\r\nhost: h\r\n\r\n", b"Host must be given once"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n", b"Content-Length must be given once, as a number"),
        (HEAD + b"Content-Length: +1\r\n\r\n", b"Content-Length must be given once, as a number"),
        (
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
            b"Transfer-Encoding must be chunked, of HTTP/1.1, and given once",
        ),
        (
            HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            b"Content-Length and Transfer-Encoding exclude each other",
        ),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2 \r\n", b"a chunk has no size"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc", b"a chunk is longer than its size"),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * MAX_CHUNK_LINE_BYTES,
            b"a line with the size of a chunk is too long",
        ),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * (MAX_CHUNKS + 1), b"there are too many chunks"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", b"trailers are malformed"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_is_refused(sent: bytes, reason: bytes, size: int) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        with suppress(ConnectionError):
            await send_in_pieces(writer, sent, size)
        answer = await rest(reader)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.endswith(b"\r\n\r\n" + reason)

    serve(Patient, scenario, speaks)


def test_trailers_beyond_the_limit() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * (MAX_HEAD_BYTES // 6 + 1))
        assert await rest(reader) == TOO_LARGE

    serve(Patient, scenario, speaks)


@pytest.mark.parametrize("last", [b"HTTP/1.1\r\nConnection: close\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n"])
def test_nothing_is_read_after_the_last_request(last: bytes) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET /a " + last + b"Host: h\r\n\r\n" + REQUEST + b"noise")
        answer = await rest(reader)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1

    serve(Patient, scenario, speaks)


def test_a_body_that_turns_out_malformed_after_its_answer_gets_no_second_one() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + bytes(1024) + b"\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 413 ")
        writer.write(b"this is no chunk\r\n")
        assert await rest(reader) == b""

    serve(Patient, scenario)
