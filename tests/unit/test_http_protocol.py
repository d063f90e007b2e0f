"""What one HTTP client can take of the host: bytes, time, requests that wait."""

import asyncio
import logging
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from host_backend import log
from host_backend.api.http_framing import MAX_FIRST_LINE_BYTES, MAX_HEAD_BYTES, MAX_HEADERS
from host_backend.api.http_protocol import MAX_REQUEST_BYTES, MAX_WAITING
from tests.doubles.http_server import (
    LARGE_BYTES,
    REQUEST,
    TOO_LARGE,
    Connect,
    Hasty,
    Patient,
    Restless,
    Unread,
    app,
    rest,
    serve,
)


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


CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "one_more", "limit"),
    [
        (REQUEST[:-2] + b"a:\r\n" * (MAX_HEADERS - 1) + b"\r\n", b"a:\r\n", f"{MAX_HEADERS} headers"),
        (CHUNKED + b"0\r\n" + b"a:\r\n" * MAX_HEADERS + b"\r\n", b"a:\r\n", f"{MAX_HEADERS} headers"),
        (
            REQUEST.replace(b"/", b"/".ljust(MAX_FIRST_LINE_BYTES - len("GET  HTTP/1.1"), b"a"), 1),
            b"a",
            f"{MAX_FIRST_LINE_BYTES} bytes in its first line",
        ),
    ],
)
def test_a_head_of_many_parts(caplog: pytest.LogCaptureFixture, request_: bytes, one_more: bytes, limit: str) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(request_)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        reader, writer = await connect()
        place = request_.rindex(b"a")
        writer.write(request_[:place] + one_more + request_[place:])
        assert await rest(reader) == TOO_LARGE

    serve(Patient, scenario)
    assert caplog.messages == [f"connection closed: the head of a request is over {limit}"]


def test_a_path_beyond_the_limit() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET /" + b"a" * MAX_HEAD_BYTES)
        assert (await rest(reader)).startswith(b"HTTP/1.1 431 ")

    serve(Patient, scenario)


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


def test_what_a_request_adds_to_its_lines_is_not_in_those_of_the_one_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.addFilter(log._with_added)

    async def telling(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/login":
            log.adds(user="alice")
        logging.getLogger(__name__).info(scope["path"])
        await app(scope, receive, send)

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST.replace(b"/", b"/login", 1) + REQUEST)
        for _ in range(2):
            await reader.readuntil(b"ok")

    try:
        serve(Patient, scenario, telling)
    finally:
        caplog.handler.removeFilter(log._with_added)
    told = {record.message: getattr(record, "fields", {}) for record in caplog.records if record.name == __name__}
    assert told == {"/login": {"user": "alice"}, "/": {}}


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
        await Unread.made[0].lost.wait()

    serve(Unread, scenario)


class InParts:
    """Answers `/large` by a large part, and another one once a test asks for it, or never."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/large":
            await app(scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(2 * LARGE_BYTES).encode())],
            }
        )
        await send({"type": "http.response.body", "body": bytes(LARGE_BYTES), "more_body": True})
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": bytes(LARGE_BYTES)})


class Resumed(Patient):
    """Tells when its client reads again."""

    def resume_writing(self) -> None:
        super().resume_writing()
        self.resumed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.resumed = asyncio.Event()


def test_an_answer_in_parts_has_one_time_for_all_of_them() -> None:
    answers = InParts()

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(LARGE_BYTES)
        (connection,) = Resumed.made
        assert isinstance(connection, Resumed)
        await connection.resumed.wait()
        assert connection._write_timer is not None
        answers.go_on.set()
        await reader.readexactly(LARGE_BYTES)
        # The next one has a time of its own.
        writer.write(REQUEST)
        await reader.readuntil(b"ok")
        assert connection._write_timer is None

    serve(Resumed, scenario, answers)


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


def test_an_idle_client_is_left() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(REQUEST)
            await reader.readuntil(b"ok")
        assert await rest(reader) == b""

    serve(Restless, scenario)


def test_a_client_whose_body_ends_after_its_refusal_is_left() -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2048\r\n\r\n" + bytes(2047))
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 413 ")
        writer.write(b"0")
        assert await rest(reader) == b""

    serve(Restless, scenario)


def test_a_client_that_is_being_answered_is_not_idle() -> None:
    looked = asyncio.Event()

    class Watched(Restless):
        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            looked.set()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await looked.wait()
        await app(scope, receive, send)

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST)
        await reader.readuntil(b"ok")
        writer.write(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        assert await rest(reader) == b""

    serve(Watched, scenario, slow)
