"""How many clients come in: those whose TLS handshake never ends count, too."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from host_backend.api import acceptor
from host_backend.api.listeners import HttpServer, tls_context
from host_backend.config import TlsConfig
from tests.doubles.certificates import Authority

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
) -> None:
    """Run a scenario against a server on the loop that `serve` uses."""
    listener = listener or socket.create_server(("127.0.0.1", 0))

    async def run() -> None:
        server = HttpServer(app, listener, max_connections=CONNECTIONS, tls=tls)
        port = listener.getsockname()[1]
        writers: list[asyncio.StreamWriter] = []

        async def connect(context: ssl.SSLContext | None) -> Client:
            client = await asyncio.open_connection("127.0.0.1", port, ssl=context)
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


def test_more_clients_than_allowed() -> None:
    async def scenario(connect: Connect) -> None:
        clients = [await connect(None) for _ in range(CONNECTIONS)]
        for client in clients:
            assert await is_served(client)
        assert await is_closed(await connect(None))
        clients[0][1].close()
        await clients[0][1].wait_closed()
        # Whoever is still served shows that the host has seen the end of the first.
        assert await is_served(clients[1])
        assert await is_served(await connect(None))

    serve(scenario)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_handshakes_that_never_end_count(authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.file))

    async def scenario(connect: Connect) -> None:
        served = await connect(trusting)
        assert await is_served(served)
        silent = [await connect(None) for _ in range(CONNECTIONS - 1)]
        assert await is_closed(await connect(None))
        assert await is_served(served)
        silent[0][1].write(b"this is no TLS")
        assert b"HTTP" not in await silent[0][0].read()
        assert await is_served(await connect(trusting))

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))


def test_a_stop_leaves_those_who_are_beginning(authority: Authority) -> None:
    silent: list[Client] = []

    async def scenario(connect: Connect) -> None:
        silent.append(await connect(None))
        assert await is_served(await connect(ssl.create_default_context(cafile=str(authority.file))))

    serve(scenario, tls_context(TlsConfig(*authority.certificate("server"))))
    assert silent


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
    assert caplog.text.count("no client can be taken: Too many open files") == 2
