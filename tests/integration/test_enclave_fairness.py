"""What one client asks for, of whatever kind, does not hold up another one. Calls take as long as a test says."""

import socket
from contextlib import ExitStack
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from enclave_signer.config import Limits
from enclave_signer.protocol import codec
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import Request
from enclave_signer.sealing.base import UnsealedKey
from enclave_signer.serving.fairness import LARGE_FRAME_BYTES, ROUND_S
from tests.doubles.daemon_in_trio import World, call, frame
from tests.doubles.daemon_in_trio import run as run_daemon
from tests.doubles.known_keys import FOUR
from tests.doubles.passthrough_enclave import PassthroughSealer

run = partial(run_daemon, limits=Limits())
BLOB = FOUR[0].clear_blob
MANY = 64
#: Of these many steps of a stranger at most are made before another client is served.
FEW = 12


class Work:
    """Steps of a stranger that take as long as a whole round; the other client asks when the first one is done."""

    def __init__(self) -> None:
        self.steps = 0
        self.began = trio.Event()
        self.on = False

    def step(self) -> None:
        if self.on:
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(ROUND_S)
            self.steps += 1
            self.began.set()


class BusySealer(PassthroughSealer):
    """Computes for long when it opens a blob, and never waits."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def unseal(self, blob: bytes) -> UnsealedKey:
        self._work.step()
        return await super().unseal(blob)


async def steps_before_an_answer(world: World, work: Work, flood: bytes) -> int:
    """Return how much is done for a stranger before the call of another client is answered."""
    stranger, host = await world.connect(), await world.connect()
    await call(stranger, {"Import": BLOB})
    await call(host, {"Import": BLOB})
    work.on = True
    await stranger.send_all(flood)
    await work.began.wait()
    await call(host, {"PublicKey": 0})
    return work.steps


@pytest.mark.parametrize(
    "request_",
    [
        {"Generate": "Ed25519"},
        {"GenerateAndImport": "Bls"},
        {"ImportUnencrypted": {"Ed25519": bytes(range(32))}},
        {"PublicKeyFrom": FOUR[3].clear_blob},
        {"SignWith": {"encrypted_private_key": FOUR[2].clear_blob, "message": b"\3", "version": 2}},
    ],
    ids=lambda request_: next(iter(request_)),
)
def test_openings_give_way_between_one_another(request_: object) -> None:
    async def main(world: World) -> None:
        assert await steps_before_an_answer(world, work, frame(request_) * MANY) <= FEW

    work = Work()
    run(main, BusySealer(work))


def test_a_turn_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        sign = frame({"Sign": {"handle": 0, "message": b"\3", "version": 2}})
        assert await steps_before_an_answer(world, work, sign * MANY) <= FEW

    def slowly(frame_: bytes) -> Request:
        work.step()
        return decode(frame_)

    work = Work()
    decode = codec.decode_request
    monkeypatch.setattr(codec, "decode_request", slowly)
    run(main)


def test_calls_that_take_no_time_are_answered_together() -> None:
    """One write for all answers: that is what makes a pipeline fast."""

    async def main(world: World) -> None:
        stream = await world.connect()
        await call(stream, {"Import": BLOB})
        await stream.send_all(frame({"PublicKey": 0}) * MANY)
        together = await stream.receive_some(1 << 20)
        await stream.send_all(frame({"PublicKey": 0}))
        assert len(together) == MANY * len(await stream.receive_some(1 << 20))

    run(main)


def test_of_large_frames_one_is_decoded_between_two_looks_at_the_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the longest steps of all, and every stranger can send one at the same moment."""

    async def main(world: World) -> None:
        with ExitStack() as stack:
            strangers = [
                stack.enter_context(socket.create_connection(("127.0.0.1", world.port))) for _ in range(strangers_count)
            ]
            # All of them are connected, and wait, before any of them asks.
            await trio.sleep(1)
            for stranger in strangers:
                stranger.sendall(encode_frame(bytes(LARGE_FRAME_BYTES + 1)))
            while len(decoded) < strangers_count:
                await trio.lowlevel.checkpoint()
                rounds.append(None)
        # The counter may come before or after a decoding of the same round.
        assert max(decoded.count(number) for number in decoded) <= 2
        assert len(set(decoded)) > strangers_count // 2

    def note(frame_: bytes) -> Request:
        decoded.append(len(rounds))
        return decode(frame_)

    strangers_count = 20
    rounds: list[None] = []
    decoded: list[int] = []
    decode = codec.decode_request
    monkeypatch.setattr(codec, "decode_request", note)
    run(main)
