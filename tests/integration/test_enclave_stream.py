"""What a connection asks of its stream: it does not know whether that is a socket as it is, or one that encrypts."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from enclave_signer.addresses import Address
from enclave_signer.config import Limits
from enclave_signer.protocol.framing import MAX_FRAME_BYTES
from enclave_signer.serving.listeners import Listener, listen
from enclave_signer.serving.tls import TlsServer
from tests.doubles.client_certificates import client_files
from tests.doubles.daemon_in_trio import INITIALIZE, World, call, frame, receive, run
from tests.doubles.known_keys import FOUR

LIMITS = Limits(initialize_s=30, write_s=7, buffer_bytes=MAX_FRAME_BYTES + 4096)
SIGN = frame({"Sign": {"handle": 0, "message": b"m", "version": 2}})


class TlsWorld:
    """A daemon that speaks TLS, and its clients."""

    def __init__(self, world: World, trusting: ssl.SSLContext) -> None:
        self.world = world
        self._trusting = trusting

    async def connect(self) -> trio.SSLStream[trio.SocketStream]:
        plain = await self.world.connect(initialize=False)
        stream = trio.SSLStream(plain, self._trusting, server_hostname="127.0.0.1")
        await stream.send_all(INITIALIZE)
        assert await receive(stream) == {"Ok": None}
        return stream


Play = Callable[[Callable[[TlsWorld], Awaitable[None]], Limits], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    files = client_files(tmp_path)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    trusting.load_cert_chain(files.certificate, files.key)

    def open_listener() -> Listener:
        return listen(Address("127.0.0.1", 0), TlsServer([files.digest], lambda *_: None))

    def play(main: Callable[[TlsWorld], Awaitable[None]], limits: Limits = LIMITS) -> None:
        run(lambda world: main(TlsWorld(world, trusting)), limits=limits, open_listener=open_listener)

    return play


def test_bytes_that_were_decrypted_already_are_not_waited_for(play: Play) -> None:
    """A record is larger than one read: its rest shows in no socket."""

    async def main(tls: TlsWorld) -> None:
        stream = await tls.connect()
        assert "Ok" in str(await call(stream, {"Import": FOUR[0].clear_blob}))
        many = 15_000 // len(SIGN)
        started = trio.current_time()
        await stream.send_all(SIGN * many)
        for _ in range(many):
            assert "Ok" in str(await receive(stream))
        # Not at the end of a time limit, when the stream is read once more.
        assert trio.current_time() == started

    play(main, LIMITS)


def test_who_does_not_end_the_handshake_is_gone_in_time_and_has_a_place_until_then(play: Play) -> None:
    async def main(tls: TlsWorld) -> None:
        holder = await tls.connect()
        assert "Ok" in str(await call(holder, {"Import": FOUR[0].clear_blob}))
        silent = [await tls.world.connect(initialize=False) for _ in range(7)]
        await silent[3].send_all(b"\x16\x03\x01")
        await trio.sleep(1)
        # All places are taken: the first of those who say nothing goes.
        newcomer = await tls.connect()
        assert await silent[0].receive_some(1) == b""
        await trio.sleep(30)
        assert [await stream.receive_some(1) for stream in silent[1:]] == [b""] * 6
        assert "Ok" in str(await call(newcomer, {"Import": FOUR[0].clear_blob}))

    play(main, replace(LIMITS, max_connections=8))


def test_a_stop_and_a_client_that_takes_nothing(play: Play) -> None:
    async def main(tls: TlsWorld) -> None:
        stopped = await tls.connect()
        slow = await tls.connect()
        started = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while True:
                await slow.send_all(SIGN * 1000)
        assert trio.current_time() - started >= 7
        assert "Ok" in str(await call(stopped, {"Import": FOUR[0].clear_blob}))
        await stopped.send_all(SIGN * 3)
        assert "Ok" in str(await receive(stopped))
        tls.world.server.stop()
        for _ in range(2):
            assert "Ok" in str(await receive(stopped))

    play(main, LIMITS)
