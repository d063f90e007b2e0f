"""Where requests end: offers of other protocols, chunks and trailers, and refusals with their words."""

from contextlib import suppress

import pytest

from host_backend.api.bodies import MAX_BODY_BYTES
from host_backend.api.http_framing import MAX_CHUNK_LINE_BYTES, MAX_CHUNKS, MAX_HEAD_BYTES
from tests.doubles.http_server import REQUEST, TOO_LARGE, Connect, Patient, rest, send_in_pieces, serve, speaks

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
        assert answer.endswith(b"\r\n\r\nthis is not a proxy")

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
        (b"\r\n" + REQUEST, b"this is not a request in HTTP/1.1"),
        (b"GET / RTSP/1.0\r\n\r\n", b"this is not a request in HTTP/1.1"),
        (b"GET  / HTTP/1.1\r\n", b"this is not a request in HTTP/1.1"),
        (b"GET /\r\n", b"this is not a request in HTTP/1.1"),
        (b"GET / HTTP/1.1\nHost: h\n", b"this is not a request in HTTP/1.1"),
        (b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", b"this is not a request in HTTP/1.1"),
        (b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", b"this is not a request in HTTP/1.1"),
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
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\n", b"a chunk has no size"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", b"trailers are malformed"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", b"trailers are malformed"),
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


def test_as_many_chunks_as_the_largest_body_has() -> None:
    size, rest_bytes = divmod(MAX_BODY_BYTES, MAX_CHUNKS)
    assert (size, rest_bytes) == (512, 0)

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * MAX_CHUNKS + b"0\r\n\r\n")
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"

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


def test_a_head_that_was_seen_before_begins_anew() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        long = b"GET /long HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 200 + b"\r\n\r\n"
        for size in (10_000, 1, 10_000, 150):
            for data in (long, REQUEST, long[:-4] + b"c\r\n\r\n", REQUEST):
                await send_in_pieces(writer, data, size)
                head, path = (await reader.readuntil(b" host")).split(b"GET ")
                assert head.startswith((b"HTTP/1.1 200", b" aHTTP/1.1 200"))
                assert path.split()[0] == data.split()[1]

    serve(Patient, scenario, speaks)
