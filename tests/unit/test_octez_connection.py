"""What one client of Octez' sockets may take: time, memory, places; on the loop that `serve` uses."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import uvloop

from host_backend.api.beginning import Beginning
from host_backend.metrics import Metrics
from host_backend.octez.answers import Answers
from host_backend.octez.connection import OctezConnection
from host_backend.octez.server import OctezServer
from host_backend.octez.wire import MAX_FRAME_BYTES, Request, error_answer
from host_backend.signer import Signer
from host_backend.steps import Steps
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.octez_socket import framed

CONNECTIONS = 3
KEYS = framed(b"\x02")
NONE_NEEDED = b"\x00\x02\x00\x00"
#: Longer than any test takes.
FOR_EVER = 3600.0

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Client]]


def no_answers() -> Answers:
    signer = Signer({}, [], MemoryWatermarkStore())
    return Answers(signer, Metrics(dict, "memory"), None, Steps(), Beginning(), list_keys=True)


class HeldAnswers(Answers):
    """Answers when a test asks."""

    def __init__(self, size: int = 0) -> None:
        self.begun = asyncio.Semaphore(0)
        self.go_on = asyncio.Event()
        self.ended = 0
        self._size = size

    async def answer(self, request: Request, address: str) -> bytes:
        del request, address
        self.begun.release()
        await self.go_on.wait()
        self.ended += 1
        return bytes(self._size) if self._size else error_answer("held")


def serve(
    scenario: Callable[[Connect, OctezServer], Awaitable[None]],
    answers: Callable[[], Answers] = no_answers,
    idle_s: float = FOR_EVER,
) -> None:
    """Run a scenario against a server."""

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        server = OctezServer(answers(), listener, max_connections=CONNECTIONS, idle_s=idle_s)
        port, writers = listener.getsockname()[1], list[asyncio.StreamWriter]()

        async def connect() -> Client:
            client = await asyncio.open_connection("127.0.0.1", port)
            writers.append(client[1])
            return client

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve())
            try:
                await scenario(connect, server)
            finally:
                server.stop()
                for writer in writers:
                    writer.close()
            await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def answer(client: Client) -> bytes:
    head = await client[0].readexactly(2)
    return head + await client[0].readexactly(struct.unpack(">H", head)[0])


async def asks(client: Client) -> bytes:
    client[1].write(KEYS)
    return await answer(client)


async def has_ended(client: Client) -> bool:
    with suppress(ConnectionError):
        return await client[0].read() == b""
    return True


@pytest.mark.parametrize("sent", [b"", KEYS[:1], KEYS[:2], b"\xff\xff\x00"])
def test_a_request_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    monkeypatch.setattr(OctezConnection, "request_s", 0.01)
    caplog.set_level("INFO")

    async def scenario(connect: Connect, _: OctezServer) -> None:
        client = await connect()
        client[1].write(sent)
        assert await has_ended(client)
        again = await connect()
        assert await asks(again) == NONE_NEEDED
        if sent:
            again[1].write(sent)
            assert await has_ended(again)

    serve(scenario)
    assert "connection closed: no whole request came within 0.01 s" in caplog.messages
    assert ("connection closed: the rest of a request did not come within 0.01 s" in caplog.messages) == bool(sent)


def test_silence_after_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario(connect: Connect, server: OctezServer) -> None:
        del server
        client = await connect()
        for _ in range(3):
            assert await asks(client) == NONE_NEEDED
        assert await has_ended(client)

    serve(scenario, idle_s=0.2)
    assert not [text for text in caplog.messages if text.startswith("connection closed")]


def test_answers_that_are_not_read_hold_back_the_next_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OctezConnection, "write_s", 0.05)
    held: list[HeldAnswers] = []

    def made() -> Answers:
        held.append(HeldAnswers(MAX_FRAME_BYTES))
        held[0].go_on.set()
        return held[0]

    async def scenario(connect: Connect, server: OctezServer) -> None:
        client = await connect()
        client[1].transport.pause_reading()  # type: ignore[attr-defined]  # of every transport of a socket
        client[1].write(KEYS * 10_000)
        await held[0].begun.acquire()
        # Until the buffers of both kernels are full; then the time for it runs, and the connection ends.
        await server._clients.wait_until_gone()
        client[1].transport.abort()
        assert held[0].ended < 10_000

    serve(scenario, made)


def test_a_client_that_sends_ahead_is_read_no_further() -> None:
    held: list[HeldAnswers] = []

    def made() -> Answers:
        held.append(HeldAnswers())
        return held[0]

    async def scenario(connect: Connect, server: OctezServer) -> None:
        client = await connect()
        client[1].write(KEYS * 1_000_000)
        await held[0].begun.acquire()
        (connection,) = server._clients
        while not connection._read_paused:  # noqa: ASYNC110 -- it tells no one
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert MAX_FRAME_BYTES < len(connection._frames) < 10 * MAX_FRAME_BYTES
        held[0].go_on.set()
        assert (await answer(client))[2] == 1
        client[1].transport.abort()

    serve(scenario, made)


def test_newcomers_displace_the_silent() -> None:
    async def scenario(connect: Connect, _: OctezServer) -> None:
        clients = [await connect() for _ in range(CONNECTIONS)]
        for client in clients:
            assert await asks(client) == NONE_NEEDED
        newcomer = await connect()
        assert await asks(newcomer) == NONE_NEEDED
        assert await has_ended(clients[0])
        for client in (*clients[1:], newcomer):
            assert await asks(client) == NONE_NEEDED

    serve(scenario)


def test_nobody_goes_to_whom_an_answer_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host_backend.api.acceptor.PATIENCE_S", 0.05)
    held: list[HeldAnswers] = []

    def made() -> Answers:
        held.append(HeldAnswers())
        return held[0]

    async def scenario(connect: Connect, _: OctezServer) -> None:
        clients = [await connect() for _ in range(CONNECTIONS)]
        for client in clients:
            client[1].write(KEYS)
            await held[0].begun.acquire()
        assert await has_ended(await connect())
        held[0].go_on.set()
        for client in clients:
            assert (await answer(client))[2] == 1

    serve(scenario, made)


def test_a_stop_waits_for_answers_and_for_nothing_else() -> None:
    held: list[HeldAnswers] = []

    def made() -> Answers:
        held.append(HeldAnswers())
        return held[0]

    async def scenario(connect: Connect, server: OctezServer) -> None:
        asking, silent, half = [await connect() for _ in range(3)]
        asking[1].write(KEYS + KEYS)
        half[1].write(KEYS[:2])
        await held[0].begun.acquire()
        server.stop()
        assert await has_ended(silent)
        assert await has_ended(half)
        held[0].go_on.set()
        assert (await answer(asking))[2] == 1
        # What was sent ahead had not begun.
        assert await has_ended(asking)
        assert held[0].ended == 1

    serve(scenario, made)


def test_a_bug_is_answered_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    class BuggySigner(Signer):
        def known_keys(self):  # type: ignore[no-untyped-def]  # it fails
            raise KeyError("what nobody outside should read")

    def made() -> Answers:
        signer = BuggySigner({}, [], MemoryWatermarkStore())
        return Answers(signer, Metrics(dict, "memory"), None, Steps(), Beginning(), list_keys=True)

    async def scenario(connect: Connect, _: OctezServer) -> None:
        client = await connect()
        client[1].write(framed(b"\x06"))
        found = await answer(client)
        assert b"internal error" in found
        assert b"nobody" not in found
        assert await asks(client) == NONE_NEEDED

    serve(scenario, made)
    assert "a request failed because of a bug" in caplog.text
