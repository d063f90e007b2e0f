"""Proofs and policies that change at the same time: what counts is the policy in force at the end."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enclave_signer.protocol.binding import Channel, channel_statement
from enclave_signer.protocol.messages import Attest, Attestation, Purpose
from host_backend.enclave.connection import EnclaveConnection
from host_backend.enclave.proving import Proving, VerifiedClaims
from host_backend.errors import AttestationRefused, Unanswered

CHANNEL = Channel(b"enclave", b"host", b"exported")


class Process:
    """An enclave's process; its tokens name its image."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._key = Ed25519PrivateKey.generate()

    def answer(self, request: Attest) -> Attestation:
        key = self._key.public_key().public_bytes_raw()
        proof = self._key.sign(channel_statement(request.nonce, CHANNEL, key))
        if request.purpose is Purpose.SESSION:
            return Attestation(key, channel_proof=proof)
        return Attestation(key, self._image, b"i" * 32, proof)


class Connection:
    """A connection to a process; it answers when `gate` has opened."""

    channel = CHANNEL

    def __init__(self, process: Process) -> None:
        self._process = process
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[Purpose] = []
        self.closed: Unanswered | None = None

    @property
    def alive(self) -> bool:
        return self.closed is None

    async def ask(self, request: Attest, _: float | None = None) -> Attestation:
        self.asked.append(request.purpose)
        await self.gate.wait()
        return self._process.answer(request)

    def close(self, reason: Unanswered) -> None:
        self.closed = reason


class Policy:
    """What refuses some images; it judges when `gate` has opened, by what it was when it began."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.proving = Proving(self._verify, 0.0, clock=lambda: 0.0, jitter=lambda: 0.5)

    async def _verify(self, token: str, _: str) -> VerifiedClaims:
        refused = token in self.refused
        await self.gate.wait()
        if refused:
            raise AttestationRefused(["its image"])
        return cast("VerifiedClaims", SimpleNamespace(expires_at=3600.0))

    async def prove(self, connection: Connection) -> None:
        await self.proving.prove(cast("EnclaveConnection", connection), by_new_token=False)


def run(scenario: Callable[[Policy], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        await scenario(Policy())

    asyncio.run(main())


def test_a_token_is_judged_by_the_policy_that_is_in_force_when_that_ends() -> None:
    async def scenario(policy: Policy) -> None:
        policy.gate.clear()
        proof = asyncio.create_task(policy.prove(Connection(Process("a"))))
        await asyncio.sleep(0)
        policy.refused.add("a")
        assert await policy.proving.judge_again()
        policy.gate.set()
        with pytest.raises(AttestationRefused, match="its image"):
            await proof

    run(scenario)


def test_a_connection_is_not_proven_by_a_token_that_was_dropped_meanwhile() -> None:
    async def scenario(policy: Policy) -> None:
        process = Process("a")
        first, second = Connection(process), Connection(process)
        await policy.prove(first)
        second.gate.clear()
        proof = asyncio.create_task(policy.prove(second))
        await asyncio.sleep(0)
        policy.refused.add("a")
        assert not await policy.proving.judge_again()
        assert first.closed is not None
        second.gate.set()
        with pytest.raises(AttestationRefused, match="its image"):
            await proof
        assert second.asked == [Purpose.SESSION, Purpose.CHANNEL]

    run(scenario)


def test_the_token_of_every_connection_is_judged_again_not_only_the_last() -> None:
    async def scenario(policy: Policy) -> None:
        former, present = Connection(Process("a")), Connection(Process("b"))
        for connection in (former, present):
            await policy.prove(connection)
        assert await policy.proving.judge_again()
        policy.refused.add("a")
        assert not await policy.proving.judge_again()
        assert former.closed is not None
        assert present.closed is not None

    run(scenario)
