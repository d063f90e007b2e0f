"""A turn answers `Sign` alike, whether it was read at fixed offsets or by the strict decoder."""

from collections.abc import Callable

import cbor2
import pytest
import trio

from enclave_signer.guard import Guard
from enclave_signer.keychain import Keychain, OpenKeys
from enclave_signer.protocol.framing import FrameDecoder
from enclave_signer.protocol.sign_call import read_sign
from enclave_signer.sealing.providers import Providers
from enclave_signer.sealing.resealing import ResealingByImage
from enclave_signer.serving.fairness import Pace, Round
from enclave_signer.serving.turn import Turn
from enclave_signer.serving.workers import open_workers
from enclave_signer.session import Session
from tests.doubles.known_keys import attestation
from tests.doubles.passthrough_enclave import PassthroughSealer

OPERATION = b"\x03" + bytes(60)
START: list[object] = [{"Initialize": {}}, {"GenerateAndImport": "Bls"}, {"GenerateAndImport": "Ed25519"}]


def plain(handle: int, message: bytes, version: int = 2) -> bytes:
    frame = cbor2.dumps({"Sign": {"handle": handle, "message": message, "version": version}})
    assert read_sign(frame) is not None
    return frame


def odd(handle: int, message: bytes, version: int = 2) -> bytes:
    frame = cbor2.dumps({"Sign": {"version": version, "message": message, "handle": handle}})
    assert read_sign(frame) is None
    return frame


def answers(frames: list[bytes]) -> list[dict[str, object]]:
    """Return what a new session answers to calls that come in one turn."""

    async def main() -> bytes:
        session = Session(
            PassthroughSealer(),
            Keychain(9, OpenKeys(9, 9, 0, lambda: 0), "10.0.0.1"),
            Guard(9, lambda _: None),
            ResealingByImage(Providers([PassthroughSealer()]), None),
        )
        shared = Round()
        async with open_workers(1) as workers, shared.going():
            turn = Turn(session, workers, Pace(shared))
            for frame in frames:
                if not turn.sign(frame):
                    await turn.take(frame)
            await turn.finish()
            assert not turn.unfinished
            return turn.answers()

    decoder = FrameDecoder()
    decoder.feed(trio.run(main))
    found = [cbor2.loads(frame) for frame in iter(decoder.next_frame, None)]
    assert len(found) == len(frames)
    return found


def test_signatures_and_refusals_alike_in_the_order_of_the_calls() -> None:
    calls: list[tuple[int, bytes, int]] = [
        (0, OPERATION, 2),
        (1, OPERATION, 2),
        (0, OPERATION, 0),
        (7, OPERATION, 2),
        (1, attestation(5), 2),
        (1, attestation(4), 2),
        (1, attestation(6)[:-1], 2),
        (1, attestation(5), 255),
    ]
    start = [cbor2.dumps(call) for call in START]
    each = answers([*start, *(form(*call) for call in calls for form in (plain, odd))])[len(start) :]
    assert each[::2] == each[1::2]
    assert [kind for answer in each[::2] for kind in answer] == ["Ok", "Ok", "Err", "Err", "Ok", "Err", "Err", "Ok"]


@pytest.mark.parametrize("form", [plain, odd])
def test_nothing_is_signed_before_the_session_began(form: Callable[[int, bytes], bytes]) -> None:
    (refused,) = answers([form(0, OPERATION)])
    assert "uninitialized" in str(refused["Err"])
