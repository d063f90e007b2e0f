"""What comes while all threads verify is verified together."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from enclave_signer.curves import CurveError, InvalidSignature, SignatureCheck, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, SigningVersion
from host_backend.vault import batches as batches_module
from host_backend.vault.batches import BATCHES, MAX_BATCH, Batches

KEY = curve(KeyType.BLS).open(PrivateKey(KeyType.BLS, bytes([1] * 32)))
VERIFYING = curve(KeyType.BLS).parse_public_key(KEY.public_key.data)


def check_of(message: bytes, *, right: bool = True) -> SignatureCheck:
    signature = KEY.sign(message if right else b"another", SigningVersion.LATEST)
    return SignatureCheck(VERIFYING, signature, message, SigningVersion.LATEST)


class Held:
    """Verifies, once it may."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def verify_each(self, checks: Sequence[SignatureCheck]) -> list[CurveError | None]:
        self.sizes.append(len(checks))
        assert self.gate.wait(60)
        if checks[0].message == b"bug":
            raise ZeroDivisionError
        return [None if check.message != b"wrong" else InvalidSignature("wrong") for check in checks]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(batches_module, "verify_each", held.verify_each)
    return held


def run(*messages: bytes, held: Held) -> list[BaseException | None]:
    """Ask for all at once, in order, and let them be verified once all have asked."""

    async def scenario() -> list[BaseException | None]:
        batches = Batches()
        asked = [asyncio.create_task(batches.verify(check_of(message))) for message in messages]
        await asyncio.sleep(0)
        held.gate.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(scenario())


def test_the_first_ones_are_alone_and_the_rest_is_together(held: Held) -> None:
    count = BATCHES + 3
    assert run(*[b"message"] * count, held=held) == [None] * count
    assert held.sizes[:BATCHES] == [1] * BATCHES
    assert sum(held.sizes) == count
    assert len(held.sizes) < count or BATCHES >= 3


def test_batches_are_bounded(held: Held) -> None:
    assert run(*[b"message"] * (BATCHES + 4 * MAX_BATCH), held=held) == [None] * (BATCHES + 4 * MAX_BATCH)
    assert max(held.sizes) <= MAX_BATCH


def test_a_wrong_one_is_wrong_alone(held: Held) -> None:
    answers = run(*[b"message"] * (BATCHES + 1), b"wrong", b"message", held=held)
    assert [type(answer) for answer in answers[-3:]] == [type(None), InvalidSignature, type(None)]


def test_a_bug_is_answered_and_the_next_ones_are_verified(held: Held) -> None:
    answers = run(b"bug", *[b"message"] * BATCHES, held=held)
    assert isinstance(answers[0], ZeroDivisionError)
    assert answers[1:] == [None] * BATCHES


def test_who_leaves_disturbs_nobody(held: Held) -> None:
    async def scenario() -> None:
        batches = Batches()
        asked = [asyncio.create_task(batches.verify(check_of(b"message"))) for _ in range(BATCHES + 2)]
        await asyncio.sleep(0)
        asked[0].cancel()
        asked[-1].cancel()
        await asyncio.sleep(0)
        held.gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers[1:-1] == [None] * BATCHES

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [b"message", b"wrong", b"bug"])
def test_without_threads_all_are_verified(first: bytes, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        batches, count = Batches(), 2 * BATCHES
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "run_in_executor", no_thread)
            asked = [batches.verify(check_of(message)) for message in (first, *[b"message"] * count)]
            answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        expected = {b"message": type(None), b"wrong": InvalidSignature, b"bug": ZeroDivisionError}[first]
        assert [type(answer) for answer in answers] == [expected, *[type(None)] * count]
        await asyncio.wait_for(batches.verify(check_of(b"message")), 60)

    held.gate.set()
    asyncio.run(scenario())


def test_signatures_are_verified_in_fact() -> None:
    async def scenario() -> None:
        batches = Batches()
        asked = [batches.verify(check_of(b"m%d" % number, right=number != 4)) for number in range(8)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [
            InvalidSignature if number == 4 else type(None) for number in range(8)
        ]

    asyncio.run(scenario())
