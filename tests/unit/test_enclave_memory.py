"""What a connection of the daemon takes is given back when it ends, and reading takes no more than has come."""

import gc
import os
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from enclave_signer.config import Limits
from enclave_signer.rights import Rights
from enclave_signer.serving.connection import Connection
from enclave_signer.serving.local_clients import WatchedStream
from enclave_signer.serving.peers import CREDENTIALS, Peer
from enclave_signer.serving.stream import FIRST_READ_BYTES, PlainStream
from enclave_signer.session import Session
from tests.doubles.daemon_in_trio import World, call, frame, run
from tests.doubles.known_keys import FOUR

#: What a daemon reads at once.
MOST = 65536


@contextmanager
def without_collections() -> Iterator[None]:
    """Leave what only a garbage collection finds where it is."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.parametrize("ending", [b"", frame({"Sign": None}), b"\0\0\0\x05\xa1\x66Imp", b"\xff" * 8])
def test_a_connection_that_has_ended_waits_for_no_garbage_collection(ending: bytes) -> None:
    """However it ends: between calls, after a refusal, within a frame, by a frame without end."""

    async def main(world: World) -> None:
        async with await world.connect() as stream:
            assert "Ok" in str(await call(stream, {"Import": FOUR[-1].clear_blob}))
            # The last to ask the workers.
            assert "Ok" in str(await call(stream, {"Sign": {"handle": 0, "message": bytes(43), "version": 2}}))
            await stream.send_all(ending)
        # Until nothing moves any more.
        await trio.sleep(1)
        left = [type(each) for each in gc.get_objects() if isinstance(each, Connection | Session)]
        assert left == []

    with without_collections():
        run(main, limits=Limits())


def plain(ours: socket.socket) -> PlainStream:
    return PlainStream(ours, Peer("test", "test"))


def watched(ours: socket.socket) -> PlainStream:
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    this = CREDENTIALS.pack(os.getpid(), os.getuid(), os.getgid())
    return WatchedStream(ours, Peer("test", "test"), Rights(0, {}, lambda _: None), this, lambda *_: None)


@pytest.mark.parametrize("opened", [plain, watched])
def test_a_short_read_takes_no_long_buffer(opened: Callable[[socket.socket], PlainStream]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = opened(ours)
        theirs.sendall(b"x" * 200)
        tracemalloc.start()
        try:
            assert stream.receive(MOST) == b"x" * 200
            assert tracemalloc.get_traced_memory()[1] < 2 * FIRST_READ_BYTES
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("opened", [plain, watched])
@pytest.mark.parametrize("size", [FIRST_READ_BYTES - 1, FIRST_READ_BYTES, FIRST_READ_BYTES + 1, MOST])
def test_what_has_come_is_read_at_once(size: int, opened: Callable[[socket.socket], PlainStream]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = opened(ours)
        sent = bytes(number % 251 for number in range(size))
        theirs.sendall(sent)
        assert stream.receive(MOST) == sent
        assert stream.receive(MOST) is None
        theirs.close()
        assert stream.receive(MOST) == b""
