"""Time limits, orderly stop and failures of the daemon: real sockets, a clock that jumps when nothing moves."""

import logging
import math
import socket
from contextlib import suppress
from dataclasses import replace
from functools import partial

import cbor2
import pytest
import trio

from enclave_signer.config import Limits
from enclave_signer.protocol.framing import MAX_FRAME_BYTES, encode_frame
from enclave_signer.protocol.messages import MAX_MESSAGE_BYTES, Credentials, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer
from tests.doubles.daemon_in_trio import World, call, exactly, frame, receive
from tests.doubles.daemon_in_trio import run as run_daemon
from tests.doubles.known_keys import FOUR
from tests.doubles.passthrough_enclave import PassthroughSealer

LIMITS = Limits(initialize_s=30, frame_s=10, write_s=7)
run = partial(run_daemon, limits=LIMITS)
BLOB = FOUR[0].clear_blob
GENERATE = frame({"GenerateAndImport": "Bls"})
SIGN = frame({"Sign": {"handle": 0, "message": b"m", "version": 2}})


class SlowSealer(PassthroughSealer):
    """Takes five seconds to seal."""

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        del credentials
        return self

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        await trio.sleep(5)
        return await super().seal(private_key, public_key)


class BrokenSealer(PassthroughSealer):
    """Has a bug."""

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        raise ZeroDivisionError("a bug")


def test_a_stranger_that_does_not_initialize_is_closed() -> None:
    async def main(world: World) -> None:
        stream = await world.connect(initialize=False)
        started = trio.current_time()
        # Being busy without Initialize does not help.
        await stream.send_all(SIGN)
        assert await receive(stream) == {"Err": {"message": "uninitialized", "source": None}}
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - started == pytest.approx(30, abs=1)

    run(main)


def test_an_initialized_idle_connection_is_kept() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        await trio.sleep(80_000)
        await stream.send_all(GENERATE)
        assert "Ok" in str(await receive(stream))

    run(main)


def test_the_clock_of_a_frame_is_not_moved_by_its_bytes() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        started = trio.current_time()
        sent = 0
        with suppress(trio.BrokenResourceError):
            for byte in SIGN:
                await stream.send_all(bytes([byte]))
                sent += 1
                await trio.sleep(3)
        assert sent < len(SIGN)
        assert 9 < trio.current_time() - started < 20

    run(main)


def test_a_client_that_does_not_take_its_answers_is_closed() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        started = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(SIGN * 1000)
        assert trio.current_time() - started >= 7

    run(main)


def test_a_stop_answers_what_was_read_and_closes_the_rest() -> None:
    async def main(world: World) -> None:
        idle = await world.connect()
        busy = await world.connect()
        await busy.send_all(GENERATE)
        with trio.move_on_after(1):
            await trio.sleep(math.inf)
        world.server.stop()
        assert "Ok" in str(await receive(busy))
        assert await busy.receive_some(1) == b""
        assert await idle.receive_some(1) == b""
        with pytest.raises(OSError, match="all attempts to connect"):
            await world.connect()

    run(main, SlowSealer())


def test_a_stop_comes_after_all_that_was_read() -> None:
    """Several turns of it: the promise is of calls, not of turns."""

    async def main(world: World) -> None:
        stream = await world.connect()
        assert "Ok" in str(await call(stream, {"Import": BLOB}))
        many = 10 * LIMITS.max_in_flight
        await stream.send_all(SIGN * many)
        assert "Ok" in str(await receive(stream))
        world.server.stop()
        for _ in range(many - 1):
            assert "Ok" in str(await receive(stream))
        assert await stream.receive_some(1) == b""

    run(main)


def test_a_stop_does_not_take_answers_back_from_a_client_that_goes_on_sending() -> None:
    """To close a socket with bytes that no one read is to reset it, and a reset throws away bytes on their way."""

    async def main(world: World) -> None:
        stream = await world.connect()
        assert "Ok" in str(await call(stream, {"Import": BLOB}))
        await stream.send_all(SIGN * 1000)
        assert "Ok" in str(await receive(stream))
        world.server.stop()
        answered = 1
        while (head := await stream.receive_some(4)) != b"":
            await exactly(stream, int.from_bytes(head, "big"))
            answered += 1
        assert answered >= 4096 // len(SIGN)

    run(main, limits=replace(LIMITS, buffer_bytes=MAX_FRAME_BYTES + 4096))


def test_a_slow_sealer_delays_no_other_connection() -> None:
    async def main(world: World) -> None:
        signing, sealing = await world.connect(), await world.connect()
        await signing.send_all(GENERATE)
        assert "Ok" in str(await receive(signing))
        await sealing.send_all(GENERATE * 3)
        started = trio.current_time()
        for _ in range(50):
            await signing.send_all(SIGN)
            assert "Ok" in str(await receive(signing))
        assert trio.current_time() == started
        for _ in range(3):
            assert "Ok" in str(await receive(sealing))
        # Three seals side by side.
        assert trio.current_time() - started == pytest.approx(5)

    run(main, SlowSealer())


def test_a_bug_is_logged_and_answered_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        await stream.send_all(GENERATE + SIGN)
        assert await receive(stream) == {"Err": {"message": "internal error: the daemon's log has it", "source": None}}
        assert "invalid handle" in str(await receive(stream))

    with caplog.at_level(logging.ERROR):
        run(main, BrokenSealer())
    assert "ZeroDivisionError" in caplog.text


def test_a_stranger_that_keeps_sending_frames_is_closed_as_well() -> None:
    async def main(world: World) -> None:
        stream = await world.connect(initialize=False)
        started = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while trio.current_time() - started < 100:
                # The end of one empty frame, and the beginning of the next.
                await stream.send_all(b"\0\0\0\0\0")
                await trio.sleep(9)
                await stream.send_all(b"\0\0\0")
        assert trio.current_time() - started < 50

    run(main)


def test_a_flood_of_frames_does_not_go_ahead_of_another_client() -> None:
    async def main(world: World) -> None:
        flooding, other = await world.connect(), await world.connect()
        await other.send_all(GENERATE)
        assert "Ok" in str(await receive(other))
        frames = 16_000
        await flooding.send_all(b"\0\0\0\0" * frames)
        for _ in range(3):
            await other.send_all(SIGN)
            assert "Ok" in str(await receive(other))
        # The other client had three answers before the flood had all of its own.
        flooding.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        taken = 0
        with trio.move_on_after(0):
            taken = len(await flooding.receive_some(1 << 22))
        refusal = len(encode_frame(cbor2.dumps({"Err": {"message": "the CBOR item is cut short", "source": None}})))
        assert taken < frames * refusal

    run(main)


def test_an_idle_connection_is_closed_where_that_is_wanted() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        started = trio.current_time()
        for _ in range(3):
            await trio.sleep(80)
            await stream.send_all(SIGN)
            assert "invalid handle" in str(await receive(stream))
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - started == pytest.approx(340, abs=1)

    run(main, limits=replace(LIMITS, idle_s=100))


def test_idle_time_does_not_lengthen_that_of_a_frame() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        started = trio.current_time()
        await stream.send_all(SIGN[:9])
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - started == pytest.approx(10, abs=1)

    run(main, limits=replace(LIMITS, idle_s=100))


def test_what_one_connection_may_have_under_way_can_be_set() -> None:
    """With one call under way at once, openings of one connection do not overlap."""

    async def main(world: World, seconds: float) -> None:
        stream = await world.connect()
        started = trio.current_time()
        await stream.send_all(GENERATE * 3)
        for _ in range(3):
            assert "Ok" in str(await receive(stream))
        assert trio.current_time() - started == pytest.approx(seconds)

    run(partial(main, seconds=5), SlowSealer())
    run(partial(main, seconds=15), SlowSealer(), limits=replace(LIMITS, max_in_flight=1))


def test_a_small_buffer_still_takes_the_largest_frame() -> None:
    async def main(world: World) -> None:
        stream = await world.connect()
        await stream.send_all(GENERATE)
        assert "Ok" in str(await receive(stream))
        message = list(bytes(MAX_MESSAGE_BYTES))
        await stream.send_all(frame({"Sign": {"handle": 0, "message": message, "version": 2}}) + SIGN)
        for _ in range(2):
            assert "Ok" in str(await receive(stream))

    run(main, limits=replace(LIMITS, buffer_bytes=MAX_FRAME_BYTES + 4096))


async def why_full(stream: trio.SocketStream) -> str:
    """Have keys made until that is refused; return why."""
    reply = "Ok"
    while "Ok" in reply:
        reply = str(await call(stream, {"GenerateAndImport": "Ed25519"}))
    return reply


def test_keys_of_one_connection_of_one_address_and_of_all_are_limited() -> None:
    async def main(world: World) -> None:
        for address, error in (
            ("127.0.0.1", "this connection holds 2 keys"),
            ("127.0.0.1", "this enclave holds 3 opened keys for your address"),
            ("127.0.0.2", "this connection holds 2 keys"),
            ("127.0.0.3", "this enclave holds 6 opened keys, the most it may"),
        ):
            assert error in await why_full(await world.connect(address=address))

    run(main, limits=replace(LIMITS, max_handles=2, max_open_keys=6))


def test_many_handles_to_one_key_lock_nobody_out() -> None:
    async def main(world: World) -> None:
        made = await call(await world.connect(), {"GenerateAndImport": "Ed25519"})
        for _ in range(4):
            stranger = await world.connect()
            for _ in range(20):
                assert "Ok" in str(await call(stranger, {"Import": BLOB}))
        back = await world.connect()
        assert isinstance(made, dict)
        assert "Ok" in str(await call(back, {"Import": made["Ok"]["encrypted_private_key"]}))

    run(main, limits=replace(LIMITS, max_handles=20, max_open_keys=20))


def test_newcomers_displace_who_is_silent_and_holds_no_keys() -> None:
    async def main(world: World) -> None:
        host = await world.connect()
        assert "Ok" in str(await call(host, {"Import": BLOB}))
        silent = []
        for _ in range(7):
            silent.append(await world.connect())
            await trio.sleep(1)
        # The first one says something: now the second is silent for longest.
        assert "Err" in str(await call(silent[0], {"PublicKey": 9}))
        back = await world.connect()
        assert "Ok" in str(await call(back, {"Import": BLOB}))
        assert await silent[1].receive_some(1) == b""
        for stream in (host, silent[0], *silent[2:]):
            assert "invalid handle" in str(await call(stream, {"PublicKey": 9}))

    run(main, limits=replace(LIMITS, max_connections=8))


async def has_place(world: World, address: str) -> bool:
    """Connect and take a key, as a host does; return whether the daemon let it."""
    try:
        stream = await world.connect(address=address)
    except (AssertionError, trio.BrokenResourceError):
        return False
    return "Ok" in str(await call(stream, {"Import": BLOB}))


def test_connections_of_one_address_leave_places_to_the_others() -> None:
    async def main(world: World) -> None:
        assert [await has_place(world, "127.0.0.2") for _ in range(20)] == [True] * 10 + [False] * 10
        assert await has_place(world, "127.0.0.1")

    run(main, limits=replace(LIMITS, max_connections=20))
