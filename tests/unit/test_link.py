"""The link to the enclave: it comes back by itself, asks again what may be asked again, and mixes no generations."""

import asyncio
import socket
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from enclave_signer.protocol import codec
from enclave_signer.protocol.errors import Family, WireError
from enclave_signer.protocol.framing import encode_frame
from enclave_signer.protocol.messages import (
    KeyType,
    ProvePossession,
    Request,
    Result,
    Sign,
    SigningVersion,
)
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import DEFAULT_LIMITS, State
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, WatermarkRejected
from host_backend.vault.vault import Vault, open_vault
from tests.doubles.auto_enclave import HANDLES_APART, AutoEnclave, auto_enclave, wrong_signature
from tests.doubles.linked_vault import (
    LINK_ERROR,
    OPENED,
    PATIENCE_S,
    PKHS,
    QUICK,
    TZ1,
    TZ2,
    TZ4,
    blob,
    outcome,
    play,
    right,
    stored,
)
from tests.doubles.memory_keys import MemoryKeys


def test_every_key_is_back_after_the_connection_was_lost() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        for generation in (1, 2, 3):
            assert [await vault.sign(pkh, b"message") for pkh in PKHS] == [right(pkh) for pkh in PKHS]
            assert (vault.link.generation, vault.link.reconnects) == (generation, generation - 1)
            assert (vault.link.state, vault.problem) == (State.READY, None)
            enclave.hang_up()
            await enclave.wait_until(lambda: vault.problem is not None)

    play(scenario)


def in_generation(vault: Vault, number: int) -> bool:
    return vault.link.generation == number and vault.problem is None


def test_no_handle_outlives_its_generation() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        for generation in range(1, 5):
            await enclave.wait_until(partial(in_generation, vault, generation))
            asked = [asyncio.create_task(outcome(vault.sign(pkh, b"message"))) for pkh in PKHS * 5]
            await enclave.wait_for(Sign, len(enclave.asked(Sign)) + 7)
            enclave.hang_up()
            for pkh, answer in zip(PKHS * 5, await asyncio.gather(*asked), strict=True):
                assert answer == right(pkh)
        await enclave.wait_until(partial(in_generation, vault, 5))
        for number, request in enclave.asked(Sign):
            assert isinstance(request, Sign)
            assert request.handle // HANDLES_APART == number

    play(scenario)


@pytest.mark.parametrize("call", [Sign, ProvePossession])
def test_what_is_idempotent_is_asked_once_more(call: type[Request]) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.hold(1, call)
        if call is Sign:
            asked = asyncio.create_task(vault.sign(TZ4, b"message"))
            expected: Result = right(TZ4)
        else:
            asked = asyncio.create_task(vault.prove_possession(TZ4))
            expected = OPENED[TZ4].prove_possession()
        await enclave.wait_for(call)
        enclave.hang_up()
        assert await asked == expected
        assert [number for number, _ in enclave.asked(call)] == [1, 2]
        assert vault.link.retries == 1

    play(scenario)


def test_once_more_is_once() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        for connection in (1, 2, 3):
            enclave.hold(connection, Sign)
        asked = asyncio.create_task(outcome(vault.sign(TZ1, b"message")))
        for count in (1, 2):
            await enclave.wait_for(Sign, count)
            enclave.hang_up()
        assert str(await asked).startswith(LINK_ERROR)
        assert len(enclave.asked(Sign)) == 2

    play(scenario)


def test_a_refusal_is_not_asked_again() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.instead = lambda _, request: WireError("no") if isinstance(request, Sign) else None
        with pytest.raises(EnclaveRefused, match="the enclave refused: no"):
            await vault.sign(TZ1, b"message")
        assert (len(enclave.asked(Sign)), vault.link.retries, vault.link.generation) == (1, 0, 1)

    play(scenario)


GUARDED = WireError(f"{Family.GUARD_REFUSED}: block of {TZ1}: another message was allowed there")


@pytest.mark.parametrize("refusal", [GUARDED, WireError("no")], ids=["guard", "enclave"])
@pytest.mark.parametrize(
    "after", [b"\xff\xff\xff\xff", encode_frame(codec.encode_ok(None))], ids=["garbled", "surplus"]
)
def test_a_refusal_stays_one_when_the_connection_ends_in_the_same_read(refusal: WireError, after: bytes) -> None:
    """The next connection may lead to an enclave that was started again, and whose guard knows nothing."""

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.instead = lambda number, request: refusal if number == 1 and isinstance(request, Sign) else None
        enclave.trailing[1, Sign] = after
        with pytest.raises(WatermarkRejected if refusal is GUARDED else EnclaveRefused, match=refusal.message):
            await vault.sign(TZ1, b"message")
        assert ([number for number, _ in enclave.asked(Sign)], vault.link.retries) == ([1], 0)
        assert await vault.sign(TZ1, b"another message") == right(TZ1, b"another message")
        assert vault.link.generation == 2

    play(scenario)


def test_a_refusal_stays_one_when_another_s_wrong_signature_ends_the_connection() -> None:
    def instead(number: int, request: Request) -> Result | WireError:
        if number == 1 and isinstance(request, Sign):
            return GUARDED if request.message == b"refused" else OPENED[TZ2].sign(b"wrong", SigningVersion.V2)
        return None

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.instead = instead
        held = enclave.hold(1, Sign)
        asked = [asyncio.create_task(outcome(vault.sign(*each))) for each in ((TZ2, b"message"), (TZ1, b"refused"))]
        await enclave.wait_for(Sign)
        # Both answers at once, the wrong one first.
        held.set()
        wrong, refused = await asyncio.gather(*asked)
        assert (type(wrong), type(refused)) == (EnclaveRefused, WatermarkRejected)
        assert ({number for number, _ in enclave.asked(Sign)}, vault.link.retries) == ({1}, 0)

    play(scenario)


def test_a_garbled_answer_is_none_and_is_asked_for_once_more() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        garbled = OPENED[TZ1].public_key
        enclave.instead = lambda number, request: garbled if number == 1 and isinstance(request, Sign) else None
        assert await vault.sign(TZ1, b"message") == right(TZ1)

    play(scenario)


def test_a_request_waits_for_the_link_up_to_a_limit() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.stop()
        await enclave.wait_until(lambda: vault.problem is not None)
        with pytest.raises(EnclaveUnavailable, match=r"cannot be reached|was lost"):
            await vault.sign(TZ1, b"message")
        assert not enclave.asked(Sign)

    play(scenario, limits=replace(QUICK, ready_s=0.05))


def test_a_request_that_waits_is_served_when_the_enclave_is_back() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.stop()
        await enclave.wait_until(lambda: vault.problem is not None)
        asked = asyncio.create_task(vault.sign(TZ1, b"message"))
        await asyncio.sleep(0)
        await enclave.listen(enclave.port)
        assert await asked == right(TZ1)

    # No one would come back for an hour, if no one waited.
    play(scenario, limits=replace(QUICK, first_pause_s=3600.0, longest_pause_s=3600.0, wanted_s=0.001))


def test_a_signature_has_a_limit_in_all() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        held = enclave.hold(1, Sign)
        with pytest.raises(EnclaveUnavailable, match=r"gave no signature within 0\.05 s"):
            await vault.sign(TZ1, b"message")
        held.set()
        # Its caller has left, and its answer is no one else's.
        assert await vault.sign(TZ1, b"another message") == right(TZ1, b"another message")
        assert vault.link.generation == 1

    play(scenario, limits=replace(QUICK, signature_s=0.05))


def test_a_vault_can_be_opened_before_its_enclave_is_there() -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            enclave.stop()
            limits = replace(QUICK, ready_s=0.05)
            open_one = partial(open_vault, stored(TZ1), Endpoint(Address("127.0.0.1", enclave.port)), limits=limits)
            with pytest.raises(EnclaveUnavailable, match="cannot be reached: Connection refused"):
                async with open_one():
                    pass
            announced: list[str] = []
            async with open_one(must_succeed=False, on_key=lambda key: announced.append(key.pkh)) as vault:
                assert "cannot be reached: Connection refused" in str(vault.problem)
                # It is known to be stored, and not unknown.
                for ask in (vault.sign(TZ1, b"message"), vault.opened_key(TZ1)):
                    with pytest.raises(EnclaveUnavailable, match="cannot be reached"):
                        await ask
                with pytest.raises(EnclaveUnavailable, match="is not open yet"):
                    vault.key(TZ1)
                assert announced == []
                await enclave.listen(enclave.port)
                await enclave.wait_until(lambda: bool(announced))
                assert await vault.sign(TZ1, b"message") == right(TZ1)
                assert announced == [TZ1]

    asyncio.run(run())


def test_a_name_is_resolved_at_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "enclave.test":
            return real(host, *arguments, **options)
        asked.append(host)
        return real(address[-1], *arguments, **options)

    asked: list[str] = []
    address = ["127.0.0.2"]
    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(TZ1): OPENED[TZ1]}) as enclave:
            opened = open_vault(
                stored(TZ1), Endpoint(Address("enclave.test", enclave.port)), limits=QUICK, must_succeed=False
            )
            async with opened as vault:
                # No one listens at the old address; the enclave has moved.
                assert vault.problem is not None
                before = len(asked)
                assert before >= 1
                address.append("127.0.0.1")
                assert await vault.sign(TZ1, b"message") == right(TZ1)
                assert len(asked) > before

    asyncio.run(run())


def test_a_wrong_signature_costs_others_nothing() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.instead = wrong_signature(OPENED[TZ1])
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.sign(TZ1, b"message")
        enclave.instead = lambda _, __: None
        assert await vault.sign(TZ2, b"message") == right(TZ2)
        assert (vault.verification.failures, vault.link.generation) == (1, 2)

    play(scenario)


def test_a_bug_in_an_attempt_does_not_end_the_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        restore = vault._ring.restore
        bugs = [KeyError("a bug")]

        async def buggy(*arguments: Any) -> bool:
            if bugs:
                raise bugs.pop()
            return await restore(*arguments)

        monkeypatch.setattr(vault._ring, "restore", buggy)
        enclave.hang_up()
        await enclave.wait_until(lambda: vault.problem is not None)
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert not bugs

    play(scenario)
    assert "an attempt to reach the enclave failed because of a bug" in caplog.text


def test_whoever_waits_when_the_vault_is_closed_is_told() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.stop()
        await enclave.wait_until(lambda: vault.problem is not None)
        asked = asyncio.create_task(outcome(vault.sign(TZ1, b"message")))
        await asyncio.sleep(0)
        await vault.aclose()
        assert isinstance(await asked, EnclaveUnavailable)
        with pytest.raises(EnclaveUnavailable):
            await vault.provisioning.generate(KeyType.ED25519)

    play(scenario)


def test_limits_leave_a_sealer_its_time() -> None:
    assert DEFAULT_LIMITS.sealer_s >= 60
