"""Who comes in, who goes for a newcomer, and what the log calls them; those whose TLS handshake never ends count, too."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from host_backend import log
from host_backend.api import acceptor, listeners
from host_backend.api.access_log import client_address
from host_backend.api.beginning import Line
from host_backend.api.forwarded import TrustedProxies
from host_backend.api.http_protocol import HttpProtocol
from host_backend.api.listeners import HttpServer, tls_context
from host_backend.api.peer import Peer
from host_backend.config import TlsConfig
from tests.doubles.certificates import Authority
from tests.doubles.http_server import LARGE_BYTES

CONNECTIONS = 3
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[ssl.SSLContext | None], Awaitable[Client]]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def serve(
    scenario: Callable[[Connect], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
    listener: socket.socket | None = None,
    *,
    answering: ASGIApp = app,
    proxies: TrustedProxies | None = None,
) -> None:
    """Run a scenario against a server on the loop that `serve` uses."""
    listener = listener or socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        server = HttpServer(answering, listener, max_connections=CONNECTIONS, tls=tls, proxies=proxies)
        name = listener.getsockname()
        writers: list[asyncio.StreamWriter] = []

        async def connect(context: ssl.SSLContext | None) -> Client:
            if isinstance(name, str):
                client = await asyncio.open_unix_connection(name)
            else:
                client = await asyncio.open_connection("127.0.0.1", name[1], ssl=context)
            writers.append(client[1])
            return client

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve())
            try:
                await scenario(connect)
            finally:
                server.should_exit = True
                for writer in writers:
                    writer.close()
            await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def is_served(client: Client) -> bool:
    reader, writer = client
    writer.write(REQUEST)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        return (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
    return False


async def is_closed(client: Client) -> bool:
    with suppress(ConnectionError):
        return await client[0].read() == b""
    return True


def test_a_newcomer_is_served_in_the_place_of_whoever_was_silent_longest(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(connect: Connect) -> None:
        clients = [await connect(None) for _ in range(CONNECTIONS)]
        # The second asks last.
        for client in (*clients, clients[1]):
            assert await is_served(client)
        for displaced in (clients[0], clients[2]):
            newcomer = await connect(None)
            assert await is_served(newcomer)
            assert await is_closed(displaced)
            assert await is_served(clients[1])
            assert await is_served(newcomer)

    serve(scenario)
    (line,) = [line for line in caplog.messages if "silent longest" in line]
    assert line == "clients that were silent longest closed for newcomers"


def test_nobody_is_displaced_to_whom_an_answer_is_due(caplog: pytest.LogCaptureFixture) -> None:
    answers = asyncio.Event()

    async def scenario(connect: Connect) -> None:
        clients = [await connect(None) for _ in range(CONNECTIONS)]
        waiting = [asyncio.ensure_future(is_served(client)) for client in clients]
        for _ in clients:
            await asked.acquire()
        assert await is_closed(await connect(None))
        answers.set()
        assert all(await asyncio.gather(*waiting))

    asked = asyncio.Semaphore(0)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.release()
        await answers.wait()
        await app(scope, receive, send)

    serve(scenario, answering=slow)
    assert caplog.messages.count("clients turned away: answers are due to all others") == 1


@pytest.mark.parametrize("patience_s", [30.0, 0.0])
def test_a_newcomer_waits_until_somebody_has_his_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, patience_s: float
) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE_S", patience_s)
    monkeypatch.setattr(acceptor, "LOOK_S", 0.001)
    asked, answers = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.release()
        await answers.wait()
        await app(scope, receive, send)

    async def scenario(connect: Connect) -> None:
        clients = [await connect(None) for _ in range(CONNECTIONS)]
        waiting = [asyncio.ensure_future(is_served(client)) for client in clients]
        for _ in clients:
            await asked.acquire()
        # One: of two, the second could get the place of the first, which has not asked yet.
        newcomers = [asyncio.ensure_future(is_served(await connect(None))) for _ in range(1 if patience_s else 2)]
        if patience_s:
            assert not (await asyncio.wait(newcomers, timeout=0.05))[0]
        else:
            assert await asyncio.gather(*newcomers) == [False, False]
        answers.set()
        assert all(await asyncio.gather(*waiting))
        if patience_s:
            assert all(await asyncio.gather(*newcomers))

    # Shares do not bind these.
    serve(scenario, answering=slow, proxies=TrustedProxies([ip_network("127.0.0.1")]))
    assert ("clients turned away: answers are due to all others" in caplog.messages) is (patience_s == 0)


def test_a_stop_leaves_a_newcomer_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE_S", 600)
    asked, newcomers = asyncio.Semaphore(0), []

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        asked.release()
        while (await receive())["type"] != "http.disconnect":
            pass

    async def scenario(connect: Connect) -> None:
        for _ in range(CONNECTIONS):
            (await connect(None))[1].write(REQUEST)
            await asked.acquire()
        newcomers.append(await connect(None))
        assert not (await asyncio.wait([asyncio.ensure_future(is_closed(newcomers[0]))], timeout=0.05))[0]

    serve(scenario, answering=hangs, proxies=TrustedProxies([ip_network("127.0.0.1")]))


def test_a_request_without_its_body_keeps_no_place() -> None:
    async def scenario(connect: Connect) -> None:
        clients = [await connect(None) for _ in range(CONNECTIONS)]
        for client in clients:
            client[1].write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1")
        assert await is_served(await connect(None))
        assert await is_closed(clients[0])

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        event = await receive()
        while event.get("more_body"):
            event = await receive()
        if event["type"] == "http.request":
            await app(scope, receive, send)

    serve(scenario, answering=reads)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_handshakes_that_never_end_keep_nobody_out(authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.file))

    async def scenario(connect: Connect) -> None:
        silent = [await connect(None) for _ in range(CONNECTIONS)]
        served = await connect(trusting)
        assert await is_served(served)
        assert await is_closed(silent[0])
        silent[1][1].write(b"this is no TLS")
        assert b"HTTP" not in await silent[1][0].read()
        # Its place is free.
        assert await is_served(await connect(trusting))
        assert await is_served(served)

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))


def log_line(caplog: pytest.LogCaptureFixture, text: str) -> dict[str, object]:
    """Return the fields of the first line that has a text."""
    return next(vars(record).get("fields", {}) for record in caplog.records if text in record.getMessage())


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """A log with the fields that a task adds to all of its lines."""
    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(log._with_added)
    yield caplog
    caplog.handler.removeFilter(log._with_added)


async def logs(scope: Scope, receive: Receive, send: Send) -> None:
    logging.getLogger("test").info("asked %s", scope["path"])
    await app(scope, receive, send)


def test_every_line_says_who(told: pytest.LogCaptureFixture) -> None:
    ports: list[int] = []

    async def scenario(connect: Connect) -> None:
        client = await connect(None)
        ports.append(client[1].get_extra_info("sockname")[1])
        assert await is_served(client)
        client[1].write(b"nonsense\r\n\r\n")
        await client[0].read()

    serve(scenario, answering=logs)
    assert log_line(told, "asked /")["source"] == f"127.0.0.1:{ports[0]}"
    assert log_line(told, "connection closed: ")["source"] == f"127.0.0.1:{ports[0]}"


@pytest.mark.parametrize("reset", [False, True])
def test_a_probe_of_a_tls_port_leaves_no_line(
    told: pytest.LogCaptureFixture, authority: Authority, reset: bool
) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.file))
    trusting.load_cert_chain(*authority.certificate("baker"))

    async def scenario(connect: Connect) -> None:
        _, writer = await connect(None)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        await writer.wait_closed()
        assert await is_served(await connect(trusting))

    certificate, key = authority.certificate("server")
    serve(scenario, tls_context(TlsConfig(certificate, key, authority.file)), answering=logs)
    assert [record.levelname for record in told.records if "did not begin" in record.message] == ["DEBUG"]


def test_a_handshake_that_failed_and_a_certificate(told: pytest.LogCaptureFixture, authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.file))
    trusting.load_cert_chain(*authority.certificate("baker"))

    async def scenario(connect: Connect) -> None:
        stranger = await connect(None)
        stranger[1].write(b"this is no TLS")
        await stranger[0].read()
        assert await is_served(await connect(trusting))

    certificate, key = authority.certificate("server")
    serve(scenario, tls_context(TlsConfig(certificate, key, authority.file)), answering=logs)
    assert str(log_line(told, "it did not begin")["source"]).startswith("127.0.0.1:")
    assert log_line(told, "asked /")["certificate"] == "CN=baker"


def test_a_client_of_a_unix_socket_is_a_user_and_a_process(told: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()

    async def scenario(connect: Connect) -> None:
        assert await is_served(await connect(None))

    serve(scenario, listener=listener, answering=logs)
    assert log_line(told, "asked /")["source"] == f"unix:uid={os.getuid()},pid={os.getpid()}"


@pytest.mark.parametrize("proxies", [("127.0.0.1",), ("10.0.0.0/8",)], ids=["trusted", "stranger"])
def test_only_a_trusted_proxy_says_for_whom_it_asks(told: pytest.LogCaptureFixture, proxies: tuple[str, ...]) -> None:
    seen: list[str] = []

    async def notes(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(client_address(scope))
        await logs(scope, receive, send)

    async def scenario(connect: Connect) -> None:
        reader, writer = await connect(None)
        for lines in (
            b"X-Forwarded-For: 192.0.2.1\r\n",
            b"Forwarded: for=192.0.2.2\r\n",
            b"Forwarded: nonsense\r\n",
            b"",
        ):
            writer.write(REQUEST[:-2] + lines + b"\r\n")
            await reader.readuntil(b"ok")

    serve(scenario, answering=notes, proxies=TrustedProxies([ip_network(text) for text in proxies]))
    asked = [vars(record)["fields"] for record in told.records if record.getMessage() == "asked /"]
    sources = [fields["source"] for fields in asked]
    if proxies == ("127.0.0.1",):
        assert seen == ["192.0.2.1", "192.0.2.2", "127.0.0.1", "127.0.0.1"]
        assert sources[:2] == ["192.0.2.1", "192.0.2.2"]
        assert all(str(source).startswith("127.0.0.1:") for source in sources[2:])
        assert all(str(fields["proxy"]).startswith("127.0.0.1:") for fields in asked)
        assert log_line(told, "a proxy does not name its client: Forwarded is malformed")
    else:
        assert seen == ["127.0.0.1"] * 4
        assert not any("proxy" in fields for fields in asked)


def test_handshakes_begin_one_at_a_time(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    due: list[Callable[[], None]] = []
    waits = asyncio.Event()

    class ByHand(Line):
        """Goes on when the test says so."""

        def __init__(self, per_pass: int, at_next_pass: Callable[[Callable[[], None]], object]) -> None:
            del at_next_pass
            super().__init__(per_pass, due.append)

        async def turn(self, address: str) -> None:
            waits.set()
            await super().turn(address)

    monkeypatch.setattr(acceptor, "Line", ByHand)
    trusting = ssl.create_default_context(cafile=str(authority.file))

    async def scenario(connect: Connect) -> None:
        # Who says nothing takes no turn.
        await connect(None)
        assert await is_served(await connect(trusting))
        second = asyncio.ensure_future(connect(trusting))
        await waits.wait()
        assert not second.done()
        due.pop()()
        assert await is_served(await second)

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))


def test_a_handshake_takes_no_turn_before_its_first_record_is_whole(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    due: list[Callable[[], None]] = []
    # No turn comes after the first one.
    monkeypatch.setattr(acceptor, "Line", lambda per_pass, _: Line(per_pass, due.append))
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="h").do_handshake()
    hello = outgoing.read()

    async def scenario(connect: Connect) -> None:
        (_, early), (reader, late) = [await connect(None) for _ in range(2)]
        early.write(hello[:1])
        late.write(hello[:-1])
        assert await is_served(await connect(ssl.create_default_context(cafile=str(authority.file))))
        late.write(hello[-1:])
        due.pop()()
        assert (await reader.readexactly(1))[0] == acceptor.HANDSHAKE_RECORD

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
def test_who_leaves_before_the_end_of_a_first_record_keeps_no_place(said: bytes, authority: Authority) -> None:
    async def scenario(connect: Connect) -> None:
        reader, writer = await connect(None)
        writer.write(said)
        writer.write_eof()
        assert await is_closed((reader, writer))

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))


def test_a_client_that_begins_no_handshake_is_left(
    told: pytest.LogCaptureFixture, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKE_S", 0.01)

    async def scenario(connect: Connect) -> None:
        assert await is_closed(await connect(None))

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))
    assert "connection closed: it did not begin: no TLS handshake within 0.01 s" in told.messages


def test_a_stop_leaves_those_who_are_beginning(authority: Authority) -> None:
    silent: list[Client] = []

    async def scenario(connect: Connect) -> None:
        silent.append(await connect(None))
        assert await is_served(await connect(ssl.create_default_context(cafile=str(authority.file))))

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))
    assert silent


@pytest.mark.parametrize("passes", range(4))
def test_who_comes_at_a_stop_ends_once_it_has_begun(passes: int) -> None:
    class Told(asyncio.Protocol):
        peer, place, has_begun, answer_due = Peer("unknown"), None, False, False

        def __init__(self) -> None:
            self.lost = asyncio.Event()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.has_begun, self.transport = True, transport

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set()

        def abandon(self) -> None: ...

        def displace(self) -> None: ...

    async def scenario() -> None:
        made, came = Told(), asyncio.Event()

        def connection() -> Any:
            came.set()
            return made

        listener = socket.create_server(("127.0.0.1", 0))
        accepting = acceptor.Acceptor(listener, connection, CONNECTIONS, None, TrustedProxies())
        with socket.create_connection(listener.getsockname()):
            await came.wait()
            for _ in range(passes):
                await asyncio.sleep(0)
            accepting.close()
            await accepting.wait_closed()
            made.transport.close()
            async with asyncio.timeout(10):
                await made.lost.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_clients_are_taken_again_when_there_are_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Starved(socket.socket):
        failures = 2

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    monkeypatch.setattr(acceptor, "RETRY_S", 0.01)

    async def scenario(connect: Connect) -> None:
        assert await is_served(await connect(None))

    serve(scenario, listener=Starved(fileno=socket.create_server(("127.0.0.1", 0)).detach()))
    assert caplog.text.count("no client can be accepted: Too many open files") == 2


def test_a_client_that_does_not_read_its_answer_keeps_no_place() -> None:
    blocked = asyncio.Semaphore(0)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await app(scope, receive, send)
            return
        length = str(LARGE_BYTES + 2).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": bytes(LARGE_BYTES), "more_body": True})
        blocked.release()
        await send({"type": "http.response.body", "body": b"ok"})

    async def scenario(connect: Connect) -> None:
        for _ in range(CONNECTIONS):
            (await connect(None))[1].write(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
            await blocked.acquire()
        assert await is_served(await connect(None))

    serve(scenario, answering=large)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_stop_waits_for_no_request_that_has_not_come_in_whole(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, *, behind: bool
) -> None:
    monkeypatch.setattr(listeners, "STOP_S", 600)
    asked, answers = asyncio.Semaphore(0), asyncio.Event()
    clients: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        asked.release()
        if scope["path"] == "/slow":
            await answers.wait()
        event = await receive()
        while event.get("more_body"):
            event = await receive()
        if event["type"] == "http.request":
            await app(scope, receive, send)

    async def scenario(connect: Connect) -> None:
        # Ours stays open until the server has ended.
        client = socket.create_connection(listener.getsockname())
        clients.append(client)
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n" * behind + sent)
        if behind or sent.startswith(b"POST"):
            await asked.acquire()
        # Whatever came before it has been read, too.
        assert await is_served(await connect(None))

    def answers_then(self: HttpProtocol) -> None:
        shutdown(self)
        answers.set()

    shutdown = HttpProtocol.shutdown
    monkeypatch.setattr(HttpProtocol, "shutdown", answers_then)
    serve(scenario, listener=listener, answering=reads)
    for client in clients:
        answer = b""
        with suppress(ConnectionError):
            while part := client.recv(1000):
                answer += part
        assert answer.count(b"200 OK") == answer.count(b"connection: close") == behind
        client.close()
