"""Frames that are too long, and time limits that are over because the loop was late: real sockets, a clock that jumps."""

import socket
from functools import partial

import cbor2
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from enclave_signer.config import Limits
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, MAX_READ_AWAY_BYTES
from tests.doubles.daemon_in_trio import INITIALIZE, World, call, frame, receive
from tests.doubles.daemon_in_trio import run as run_daemon
from tests.doubles.known_keys import FOUR

run = partial(run_daemon, limits=Limits(initialize_s=30, frame_s=10, write_s=7))
BLOB = FOUR[0].clear_blob
SIGN = frame({"Sign": {"handle": 0, "message": b"m", "version": 2}})


def long_frame(size: int = 1 << 20) -> bytes:
    return size.to_bytes(4, "big") + bytes(size)


async def check_thrown_away(stream: trio.SocketStream, size: int = 1 << 20) -> None:
    told = f"a frame of {size} bytes is over the limit of 131072, and was thrown away"
    assert await receive(stream) == {"Err": {"message": told, "source": None}}


def test_a_frame_that_is_too_long_is_answered_and_the_session_goes_on() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        assert "Ok" in str(await call(stream, {"Import": BLOB}))
        for size in (MAX_FRAME_BYTES + 1, MAX_READ_AWAY_BYTES):
            await stream.send_all(long_frame(size))
            await check_thrown_away(stream, size)
            assert "Ok" in str(await call(stream, {"PublicKey": 0}))
        # In order with what comes before and behind it.
        await stream.send_all(SIGN + long_frame() + SIGN * 2 + long_frame() + long_frame() + SIGN)
        for answer in "Ok", None, "Ok", "Ok", None, None, "Ok":
            await check_thrown_away(stream) if answer is None else await check_ok(stream)

    async def check_ok(stream: trio.SocketStream) -> None:
        assert "Ok" in str(await receive(stream))

    run(main)


def test_a_frame_that_is_too_long_even_for_that_ends_the_connection() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        await stream.send_all(SIGN + (MAX_READ_AWAY_BYTES + 1).to_bytes(4, "big"))
        assert "invalid handle" in str(await receive(stream))
        assert await stream.receive_some(1) == b""

    run(main)


def test_a_stranger_s_frame_that_is_too_long_ends_the_connection_at_once() -> None:
    async def main(world: World) -> None:
        stream = await world.connect(initialize=False)
        await stream.send_all(long_frame()[:4])
        assert await stream.receive_some(1) == b""
        # It is no stranger's behind `Initialize`, although both came at once.
        stream = await world.connect(initialize=False)
        await stream.send_all(INITIALIZE + long_frame())
        assert await receive(stream) == {"Ok": None}
        await check_thrown_away(stream)

    run(main)


def test_a_frame_that_is_read_away_has_its_time() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        started = trio.current_time()
        await stream.send_all(long_frame()[:500_000])
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - started == pytest.approx(10, abs=1)

    run(main)


def test_frames_that_are_read_away_hold_nobody_up() -> None:
    async def main(world: World) -> None:
        other = await world.connect()
        assert "Ok" in str(await call(other, {"Import": BLOB}))

        async def send(stream: trio.SocketStream) -> None:
            for _ in range(4):
                await stream.send_all(long_frame(MAX_READ_AWAY_BYTES // 4))
                await check_thrown_away(stream, MAX_READ_AWAY_BYTES // 4)
            ended.append(None)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send, await world.connect())
            for _ in range(20):
                await other.send_all(SIGN)
                assert "Ok" in str(await receive(other))
            signed_before.append(len(ended))

    ended: list[None] = []
    signed_before: list[int] = []
    run(main)
    assert len(ended) == 20
    assert signed_before == [0]


def late(seconds: float) -> None:
    """Let so much time pass before the daemon looks again."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


def test_what_came_in_time_is_answered_although_the_loop_was_late() -> None:
    async def main(world: World) -> None:
        for whole in (SIGN, frame({"Import": bytes(30_000)})):
            # Sent without a look of the daemon's in between.
            with socket.create_connection(("127.0.0.1", world.port)) as client:
                client.sendall(INITIALIZE + whole[:9])
                await trio.testing.wait_all_tasks_blocked(0.01)
                client.sendall(whole[9:])
                late(1000)
                await trio.lowlevel.wait_readable(client)
                answers = client.recv(1000)
                while b"Err" not in answers:
                    await trio.lowlevel.wait_readable(client)
                    more = client.recv(1000)
                    assert more
                    answers += more

    run(main)


def test_a_stranger_s_initialize_counts_although_the_loop_was_late() -> None:
    async def main(world: World) -> None:
        with socket.create_connection(("127.0.0.1", world.port)) as stranger:
            await trio.testing.wait_all_tasks_blocked(0.01)
            stranger.sendall(INITIALIZE)
            late(1000)
            await trio.lowlevel.wait_readable(stranger)
            assert stranger.recv(100)[4:] == cbor2.dumps({"Ok": None})

    run(main)


def test_who_sends_without_end_is_judged_all_the_same() -> None:
    async def main(world: World) -> None:
        stream = await world.connect(initialize=False)
        await trio.testing.wait_all_tasks_blocked(0.01)
        late(1000)
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 -- until it is closed
            while True:
                await stream.send_all(SIGN * 10)
                await trio.lowlevel.checkpoint()

    run(main)
