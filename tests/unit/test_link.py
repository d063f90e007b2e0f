"""The link to the enclave: it comes back by itself, asks again what may be asked again, and mixes no generations."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import (
    GenerateAndImport,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    ProvePossession,
    Request,
    Result,
    Sign,
    SigningVersion,
)
from enclave_signer.tezos import parse_secret_key
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits, State
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, HostError, KeyNotFound
from host_backend.keystore.base import StoredKey
from host_backend.vault import Vault, open_vault
from host_backend.vaults import find_vault
from tests.doubles.auto_enclave import HANDLES_APART, AutoEnclave, auto_enclave, wrong_signature
from tests.doubles.known_keys import FOUR, KEYS
from tests.doubles.memory_keys import MemoryKeys

PATIENCE_S = 60.0
#: No pause between attempts, and nothing that is late by the clock.
QUICK = LinkLimits(
    first_pause_s=0.0,
    sign_s=600,
    patience_s=600,
    sealer_s=600,
    ready_s=600,
    signature_s=600,
    look_again_s=0.0,
    watch_s=600,
)
OPENED: dict[str, SigningKey] = {
    key.pkh: curve(key.key_type).open(parse_secret_key(key.secret)) for key in (*FOUR, KEYS["bob"])
}
PKHS = [key.pkh for key in FOUR]
TZ1, TZ2, TZ3, TZ4 = PKHS
BOB = KEYS["bob"].pkh
LINK_ERROR = "the connection to the enclave was lost"

Scenario = Callable[[Vault, AutoEnclave, MemoryKeys], Awaitable[None]]


def blob(pkh: str) -> bytes:
    return b"blob of " + pkh.encode()


def stored(*pkhs: str) -> MemoryKeys:
    return MemoryKeys(*(StoredKey(pkh, blob(pkh)) for pkh in pkhs))


def play(scenario: Scenario, *, limits: LinkLimits = QUICK, store: MemoryKeys | None = None, **options: Any) -> None:
    """Open a vault on an enclave that opens the blobs of all keys, and run a scenario."""
    keys = stored(*PKHS) if store is None else store

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in OPENED}) as enclave:
            opened = open_vault(keys, host="127.0.0.1", port=enclave.port, limits=limits, **options)
            async with opened as vault:
                await scenario(vault, enclave, keys)

    asyncio.run(run())


def right(pkh: str, message: bytes = b"message") -> Result:
    return OPENED[pkh].sign(message, SigningVersion.V2)


async def outcome(asked: Awaitable[Result]) -> Result | HostError:
    try:
        return await asked
    except HostError as error:
        return error


def test_every_key_is_back_after_the_connection_was_lost() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        for generation in (1, 2, 3):
            assert [await vault.sign(pkh, b"message") for pkh in PKHS] == [right(pkh) for pkh in PKHS]
            assert (vault.generation, vault.reconnects) == (generation, generation - 1)
            assert (vault.state, vault.problem) == (State.READY, None)
            enclave.hang_up()
            await enclave.wait_until(lambda: vault.problem is not None)

    play(scenario)


def test_no_handle_outlives_its_generation() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        for _round in range(4):
            asked = [asyncio.create_task(outcome(vault.sign(pkh, b"message"))) for pkh in PKHS * 5]
            await enclave.wait_for(Sign, len(enclave.asked(Sign)) + 7)
            enclave.hang_up()
            for pkh, answer in zip(PKHS * 5, await asyncio.gather(*asked), strict=True):
                assert answer == right(pkh)
        assert enclave.connections > 4
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
        assert vault.retries == 1

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
        assert (len(enclave.asked(Sign)), vault.retries, vault.generation) == (1, 0, 1)

    play(scenario)


@pytest.mark.parametrize("call", [GenerateAndImport, ImportUnencrypted])
def test_what_makes_a_key_is_never_asked_again(call: type[Request]) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.hold(2, call)
        making = vault.generate(KeyType.P256) if call is GenerateAndImport else vault.import_key(secret(BOB))
        asked = asyncio.create_task(making)
        await enclave.wait_for(call)
        enclave.hang_up()
        with pytest.raises(EnclaveUnavailable, match=LINK_ERROR):
            await asked
        # The vault is well again, and has not asked for a key.
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert (len(enclave.asked(call)), len(keys.stored)) == (1, len(PKHS))

    play(scenario)


def secret(pkh: str) -> Any:
    (known,) = (key for key in KEYS.values() if key.pkh == pkh)
    return parse_secret_key(known.secret)


def test_a_key_that_is_being_made_delays_no_signature() -> None:
    """The sealer never answers while signatures are made: no clock is needed to see that they do not wait for it."""

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        made = enclave.hold(2, GenerateAndImport)
        generating = asyncio.create_task(vault.generate(KeyType.ED25519))
        await enclave.wait_for(GenerateAndImport)
        for number in range(100):
            message = b"%d" % number
            assert await vault.sign(TZ1, message) == right(TZ1, message)
        made.set()
        key = await generating
        assert await vault.sign(key.pkh, b"message")
        sealing = (GenerateAndImport, ImportUnencrypted)
        assert {number for call in sealing for number, _ in enclave.asked(call)} == {2}
        assert {number for number, _ in enclave.asked(Sign)} == {1}

    play(scenario)


def test_a_blob_that_is_opened_for_the_first_time_delays_no_signature() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        opened = enclave.hold(2, Import)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        looking = asyncio.create_task(vault.look_again())
        await enclave.wait_until(lambda: (2, Import(blob(BOB))) in enclave.calls)
        for number in range(100):
            message = b"%d" % number
            assert await vault.sign(TZ1, message) == right(TZ1, message)
        opened.set()
        await looking
        assert await vault.sign(BOB, b"message") == right(BOB)
        # First where the sealer may take its time, then where signing happens.
        numbers = [number for number, request in enclave.calls if request == Import(blob(BOB))]
        assert numbers == [2, 1]

    play(scenario)


def test_a_key_of_another_process_is_found_when_it_is_asked_for() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        with pytest.raises(KeyNotFound):
            await find_vault([vault], BOB)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        assert await find_vault([vault], BOB) is vault
        assert await vault.sign(BOB, b"message") == right(BOB)

    play(scenario)


def test_a_key_of_another_process_appears_without_being_asked_for() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await enclave.wait_until(lambda: (1, Import(blob(BOB))) in enclave.calls)
        assert await vault.sign(BOB, b"message") == right(BOB)

    play(scenario, limits=replace(QUICK, watch_s=0.001))


def test_strangers_who_ask_for_unknown_keys_have_the_store_read_once() -> None:
    class CountingKeys(MemoryKeys):
        asked = 0

        async def revision(self) -> str:
            self.asked += 1
            return await super().revision()

    keys = CountingKeys(StoredKey(TZ1, blob(TZ1)))

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        before = keys.asked
        asked = [asyncio.create_task(find_vault([vault], BOB)) for _ in range(100)]
        for refusal in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(refusal, KeyNotFound)
        assert keys.asked == before + 1

    play(scenario, limits=replace(QUICK, look_again_s=600), store=keys)


def test_a_store_that_cannot_be_read_is_told_and_takes_no_key_away(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        keys.failing = True
        await vault.look_again()
        assert vault.degraded == ["vault: the disk is full"]
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        enclave.hang_up()
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        keys.failing = False
        await vault.look_again()
        assert vault.degraded == []

    play(scenario)
    assert "no new keys are seen: the disk is full" in caplog.text


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

    # Nobody would come back for an hour, if nobody waited.
    play(scenario, limits=replace(QUICK, first_pause_s=3600.0, longest_pause_s=3600.0, wanted_s=0.001))


def test_a_signature_has_a_limit_in_all() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        held = enclave.hold(1, Sign)
        with pytest.raises(EnclaveUnavailable, match=r"gave no signature within 0\.05 s"):
            await vault.sign(TZ1, b"message")
        held.set()
        # Its caller has left, and its answer is nobody else's.
        assert await vault.sign(TZ1, b"another message") == right(TZ1, b"another message")
        assert vault.generation == 1

    play(scenario, limits=replace(QUICK, signature_s=0.05))


def test_a_vault_can_be_opened_before_its_enclave_is_there() -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            enclave.stop()
            limits = replace(QUICK, ready_s=0.05)
            open_one = partial(open_vault, stored(TZ1), host="127.0.0.1", port=enclave.port, limits=limits)
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
            opened = open_vault(stored(TZ1), host="enclave.test", port=enclave.port, limits=QUICK, must_succeed=False)
            async with opened as vault:
                # Nobody listens at the old address; the enclave has moved.
                assert vault.problem is not None
                before = len(asked)
                assert before >= 1
                address.append("127.0.0.1")
                assert await vault.sign(TZ1, b"message") == right(TZ1)
                assert len(asked) > before

    asyncio.run(run())


def test_answers_in_another_order_take_no_key_out_of_service() -> None:
    """The enclave answers two imports of the first connection the wrong way round, and is right ever after."""

    def instead(number: int, request: Request) -> Result:
        swapped = {blob(TZ2): TZ3, blob(TZ3): TZ2}
        if number == 1 and isinstance(request, Import) and request.blob in swapped:
            return ImportedKey(OPENED[swapped[request.blob]].public_key, 0)
        return None

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            enclave.instead = instead
            opened = open_vault(stored(*PKHS), host="127.0.0.1", port=enclave.port, limits=QUICK, must_succeed=False)
            async with opened as vault:
                assert [await vault.sign(pkh, b"message") for pkh in PKHS] == [right(pkh) for pkh in PKHS]
                assert vault.quarantined == {}
                # The first was given up, the second was asked, the third serves.
                assert {number for number, _ in enclave.asked(Sign)} == {3}

    asyncio.run(run())


def test_a_key_comes_back_when_its_sealer_does() -> None:
    refusing = {blob(TZ2)}

    def instead(_: int, request: Request) -> Result | WireError:
        return WireError("the sealer is away") if isinstance(request, Import) and request.blob in refusing else None

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            enclave.instead = instead
            limits = replace(QUICK, reopen_s=0.0)
            async with open_vault(stored(*PKHS), host="127.0.0.1", port=enclave.port, limits=limits) as vault:
                assert vault.quarantined == {TZ2: "the enclave refused: the sealer is away"}
                assert (vault.state, await vault.sign(TZ1, b"message")) == (State.DEGRADED, right(TZ1))
                refusing.clear()
                await vault.look_again()
                assert (vault.state, vault.quarantined) == (State.READY, {})
                assert await vault.sign(TZ2, b"message") == right(TZ2)
                assert [key.pkh for key in vault.keys] == [TZ1, TZ3, TZ4, TZ2]

    asyncio.run(run())


def test_an_entry_that_was_put_right_is_tried_at_once() -> None:
    keys = MemoryKeys(StoredKey(TZ1, b"damaged"))

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        assert vault.quarantined == {TZ1: "the enclave refused: blob corrupt"}
        await vault.look_again()
        assert len(enclave.asked(Import)) == 1
        keys.stored[:] = [StoredKey(TZ1, blob(TZ1))]
        await vault.look_again()
        assert await vault.sign(TZ1, b"message") == right(TZ1)

    play(scenario, store=keys)


def test_a_wrong_signature_costs_others_nothing() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.instead = wrong_signature(OPENED[TZ1])
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.sign(TZ1, b"message")
        enclave.instead = lambda _, __: None
        assert await vault.sign(TZ2, b"message") == right(TZ2)
        assert (vault.verification_failures, vault.generation) == (1, 2)

    play(scenario)


def test_of_two_vaults_with_a_key_the_one_that_can_sign_does() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        async with (
            auto_enclave({blob(TZ1): OPENED[TZ1]}) as other,
            open_vault(stored(TZ1), host="127.0.0.1", port=other.port, limits=QUICK) as second,
        ):
            assert await find_vault([vault, second], TZ1) is vault
            enclave.stop()
            await enclave.wait_until(lambda: vault.problem is not None)
            assert await find_vault([vault, second], TZ1) is second
            # Held by the one that is away only: it is waited for.
            assert await find_vault([vault, second], TZ2) is vault

    play(scenario)


def test_a_bug_in_an_attempt_does_not_end_the_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        restore = vault._ring.restore
        bugs = [KeyError("a bug")]

        async def buggy(client: Any) -> bool:
            if bugs:
                raise bugs.pop()
            return await restore(client)

        monkeypatch.setattr(vault._ring, "restore", buggy)
        enclave.hang_up()
        await enclave.wait_until(lambda: vault.problem is not None)
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert not bugs

    play(scenario)
    assert "an attempt to reach the enclave failed by a bug" in caplog.text


def test_whoever_waits_when_the_vault_is_closed_is_told() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        enclave.stop()
        await enclave.wait_until(lambda: vault.problem is not None)
        asked = asyncio.create_task(outcome(vault.sign(TZ1, b"message")))
        await asyncio.sleep(0)
        await vault.aclose()
        assert isinstance(await asked, EnclaveUnavailable)
        with pytest.raises(EnclaveUnavailable):
            await vault.generate(KeyType.ED25519)

    play(scenario)


def test_progress_of_a_restoring_is_told() -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            held = enclave.hold(1, Import)
            limits = replace(QUICK, start_s=0.0)
            opened = open_vault(stored(*PKHS), host="127.0.0.1", port=enclave.port, limits=limits, must_succeed=False)
            async with opened as vault:
                await enclave.wait_for(Import)
                assert (vault.state, vault.progress) == (State.RESTORING, (0, 4))
                assert vault.problem == "restoring: 0 of 4 keys dealt with"
                held.set()
                assert await vault.sign(TZ1, b"message") == right(TZ1)
                assert vault.progress == (4, 4)
                assert len(enclave.asked(Initialize)) == 1

    asyncio.run(run())


def test_limits_leave_a_sealer_its_time() -> None:
    assert DEFAULT_LIMITS.sealer_s >= 60
