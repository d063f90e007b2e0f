"""Which keys are open on the link, and where they are opened: none delays a signature, none is lost for good."""

import asyncio
from dataclasses import replace

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import (
    GenerateAndImport,
    Import,
    ImportedKey,
    ImportUnencrypted,
    Initialize,
    KeyType,
    PrivateKey,
    Request,
    Result,
    Sign,
)
from enclave_signer.tezos import public_key_hash
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import State
from host_backend.errors import ConfigError, EnclaveUnavailable, KeyNotFound
from host_backend.keystore.base import StoredKey
from host_backend.vault.choice import find_vault
from host_backend.vault.keyring import RESTORE_IN_FLIGHT
from host_backend.vault.keys import VaultKey
from host_backend.vault.reading import KEYS_PER_TURN
from host_backend.vault.vault import Vault, open_vault
from tests.doubles.auto_enclave import AutoEnclave, auto_enclave
from tests.doubles.linked_vault import (
    ALICE,
    BOB,
    LINK_ERROR,
    OPENED,
    PATIENCE_S,
    PKHS,
    QUICK,
    TZ1,
    TZ2,
    TZ3,
    TZ4,
    blob,
    play,
    right,
    secret,
    stored,
)
from tests.doubles.memory_keys import MemoryKeys


@pytest.mark.parametrize("call", [GenerateAndImport, ImportUnencrypted])
def test_what_makes_a_key_is_never_asked_again(call: type[Request]) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.hold(2, call)
        making = (
            vault.provisioning.generate(KeyType.P256)
            if call is GenerateAndImport
            else vault.provisioning.import_key(secret(BOB))
        )
        asked = asyncio.create_task(making)
        await enclave.wait_for(call)
        enclave.hang_up()
        with pytest.raises(EnclaveUnavailable, match=LINK_ERROR):
            await asked
        # The vault is well again, and has not asked for a key.
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert (len(enclave.asked(call)), len(keys.stored)) == (1, len(PKHS))

    play(scenario)


def test_closing_leaves_no_connection_that_is_being_made() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        gate = enclave.hold(2, Initialize)
        asked = asyncio.create_task(vault.provisioning.generate(KeyType.P256))
        await enclave.wait_for(Initialize, 2)
        await vault.aclose()
        gate.set()
        with pytest.raises(EnclaveUnavailable, match="was closed"):
            await asked
        await enclave.wait_until(lambda: not enclave.open_connections)

    play(scenario)


async def sign_a_hundred(vault: Vault) -> None:
    for number in range(100):
        message = b"%d" % number
        assert await vault.sign(TZ1, message) == right(TZ1, message)


def test_a_key_that_is_being_made_delays_no_signature() -> None:
    """The sealer never answers while signatures are made: no clock is needed to see that they do not wait for it."""

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        made = enclave.hold(2, GenerateAndImport)
        generating = asyncio.create_task(vault.provisioning.generate(KeyType.ED25519))
        await enclave.wait_for(GenerateAndImport)
        await sign_a_hundred(vault)
        made.set()
        key = await generating
        assert await vault.sign(key.pkh, b"message")
        sealing = (GenerateAndImport, ImportUnencrypted)
        assert {number for call in sealing for number, _ in enclave.asked(call)} == {2}
        assert {number for number, _ in enclave.asked(Sign)} == {1, 3}

    play(scenario)


def test_a_blob_that_is_opened_for_the_first_time_delays_no_signature() -> None:
    """The enclave remembers nothing: its sealer is asked wherever the blob is opened, and takes as long as it likes."""

    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        tried, opened = enclave.hold(2, Import), enclave.hold(3, Import)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        looking = asyncio.create_task(vault.look_again())
        await enclave.wait_until(lambda: (2, Import(blob(BOB))) in enclave.calls)
        await sign_a_hundred(vault)
        tried.set()
        await looking
        # All keys are opened again, beside the connection on which signatures go on.
        await enclave.wait_until(lambda: 3 in {number for number, _ in enclave.asked(Import)})
        asked = asyncio.create_task(vault.sign(BOB, b"message"))
        await sign_a_hundred(vault)
        assert (vault.link.state, vault.link.generation, vault.degraded) == (State.READY, 1, [])
        opened.set()
        assert await asked == right(BOB)
        assert [number for number, request in enclave.calls if request == Import(blob(BOB))] == [2, 3]
        assert (vault.link.state, vault.link.generation, vault.link.reconnects) == (State.READY, 2, 0)

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
        await enclave.wait_until(lambda: vault.serves(BOB))
        assert await vault.sign(BOB, b"message") == right(BOB)

    keys = stored(*PKHS)
    keys.look_s = 0.001
    play(scenario, store=keys)


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
        # Whether they come at once or one after the other.
        for _again in range(10):
            with pytest.raises(KeyNotFound):
                await find_vault([vault], BOB)
        assert keys.asked == before + 1

    play(scenario, limits=replace(QUICK, look_again_s=600), store=keys)


def test_a_store_that_is_not_well_formed_is_read_once_until_it_changes() -> None:
    class SpoiltKeys(MemoryKeys):
        loaded = 0
        spoilt: str | None = None

        async def load(self) -> tuple[StoredKey, ...]:
            self.loaded += 1
            if self.spoilt is not None:
                raise ConfigError(self.spoilt)
            return await super().load()

        async def revision(self) -> str:
            return f"{await super().revision()} {self.spoilt}"

    keys = SpoiltKeys(StoredKey(TZ1, blob(TZ1)))

    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        keys.spoilt = "too large"
        before = keys.loaded
        for _again in range(5):
            await vault._ring.look_again()
            assert vault.degraded == ["vault: too large"]
        assert keys.loaded == before + 1
        keys.spoilt = None
        await vault._ring.look_again()
        assert vault.degraded == []

    play(scenario, store=keys)


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
            opened = open_vault(
                stored(*PKHS), Endpoint(Address("127.0.0.1", enclave.port)), limits=QUICK, must_succeed=False
            )
            async with opened as vault:
                assert [await vault.sign(pkh, b"message") for pkh in PKHS] == [right(pkh) for pkh in PKHS]
                assert vault.quarantined == {}
                # The first was given up, the second was asked, the third serves.
                assert {number for number, _ in enclave.asked(Sign)} == {3}

    asyncio.run(run())


@pytest.mark.parametrize("others", [(TZ1, TZ3), ()], ids=["beside others", "alone"])
def test_a_blob_of_another_key_takes_no_vault_down_where_no_further_connection_is_granted(
    others: tuple[str, ...],
) -> None:
    keys = MemoryKeys(*(StoredKey(pkh, blob(pkh)) for pkh in others), StoredKey(TZ2, blob(BOB)))

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in OPENED}) as enclave:
            enclave.granted = 1
            opened = open_vault(keys, Endpoint(Address("127.0.0.1", enclave.port)), limits=QUICK, must_succeed=False)
            async with opened as vault:
                told = f"its blob holds another key, {BOB}: not confirmed, as no further connection"
                if others:
                    assert [await vault.sign(pkh, b"message") for pkh in others] == [right(pkh) for pkh in others]
                    assert (vault.link.state, vault.link.generation) == (State.DEGRADED, 1)
                    assert vault.quarantined[TZ2].startswith(told)
                else:
                    # It may be the only answer that is wrong, or all of them.
                    assert f"no answer of the enclave names the key that is stored: {TZ2}: {told}" in str(vault.problem)
                    assert vault.quarantined == {}
                enclave.granted = None
                enclave.hang_up()
                await enclave.wait_until(lambda: vault.quarantined == {TZ2: f"its blob holds another key, {BOB}"})

    asyncio.run(run())


def test_answers_in_another_order_take_no_key_out_of_service_where_no_further_connection_is_granted() -> None:
    """All answers of the first connection name other keys: none is believed."""
    order = dict(zip(map(blob, PKHS), PKHS[1:] + PKHS[:1], strict=True))

    def instead(number: int, request: Request) -> Result:
        if number == 1 and isinstance(request, Import):
            return ImportedKey(OPENED[order[request.blob]].public_key, 0)
        return None

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            enclave.instead = instead
            enclave.granted = 1
            opened = open_vault(
                stored(*PKHS), Endpoint(Address("127.0.0.1", enclave.port)), limits=QUICK, must_succeed=False
            )
            async with opened as vault:
                assert [await vault.sign(pkh, b"message") for pkh in PKHS] == [right(pkh) for pkh in PKHS]
                assert vault.quarantined == {}

    asyncio.run(run())


def test_a_key_comes_back_when_its_sealer_does() -> None:
    refusing = {blob(TZ2)}

    def instead(_: int, request: Request) -> Result | WireError:
        return WireError("the sealer is away") if isinstance(request, Import) and request.blob in refusing else None

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            enclave.instead = instead
            limits = replace(QUICK, reopen_s=0.0)
            async with open_vault(stored(*PKHS), Endpoint(Address("127.0.0.1", enclave.port)), limits=limits) as vault:
                assert vault.quarantined == {TZ2: "the enclave refused: the sealer is away"}
                assert (vault.link.state, await vault.sign(TZ1, b"message")) == (State.DEGRADED, right(TZ1))
                refusing.clear()
                await vault.look_again()
                assert (vault.link.state, vault.quarantined) == (State.READY, {})
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


def test_of_two_vaults_with_a_key_the_one_that_can_sign_does() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        async with (
            auto_enclave({blob(TZ1): OPENED[TZ1]}) as other,
            open_vault(stored(TZ1), Endpoint(Address("127.0.0.1", other.port)), limits=QUICK) as second,
        ):
            assert await find_vault([vault, second], TZ1) is vault
            enclave.stop()
            await enclave.wait_until(lambda: vault.problem is not None)
            assert await find_vault([vault, second], TZ1) is second
            # Held by the one that is away only: it is waited for.
            assert await find_vault([vault, second], TZ2) is vault

    play(scenario)


def test_the_tasks_that_open_keys_are_few_however_many_keys_there_are() -> None:
    """Making a task for each would hold up everything else for as long as that takes."""
    many = {b"%d" % number: curve(KeyType.ED25519).open(seed(number)) for number in range(1, 1001)}
    keys = MemoryKeys(*(StoredKey(public_key_hash(key.public_key), blob) for blob, key in many.items()))

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave(many) as enclave:
            held = enclave.hold(1, Import)
            limits = replace(QUICK, start_s=0.0)
            opened = open_vault(keys, Endpoint(Address("127.0.0.1", enclave.port)), limits=limits, must_succeed=False)
            async with opened as vault:
                await enclave.wait_for(Import)
                # A few more belong to the test, the vault and the enclave.
                assert len(asyncio.all_tasks()) < 2 * RESTORE_IN_FLIGHT
                held.set()
                await enclave.wait_until(lambda: vault.link.state is State.READY)
                assert (len(vault.keys), vault.progress) == (1000, (1000, 1000))

    asyncio.run(run())


def test_other_tasks_have_their_turn_while_what_became_of_many_keys_is_noted() -> None:
    many = {b"%d" % number: curve(KeyType.ED25519).open(seed(number)) for number in range(1, 2 * KEYS_PER_TURN + 2)}
    keys = MemoryKeys(*(StoredKey(public_key_hash(key.public_key), blob) for blob, key in many.items()))

    async def run() -> None:
        turns = 0
        noted_in = []

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        def note(_: VaultKey) -> None:
            noted_in.append(turns)

        async with asyncio.timeout(PATIENCE_S), auto_enclave(many) as enclave:
            counting = asyncio.create_task(count())
            async with open_vault(keys, Endpoint(Address("127.0.0.1", enclave.port)), limits=QUICK, on_key=note):
                assert [noted_in.count(turn) for turn in sorted(set(noted_in))] == [KEYS_PER_TURN, KEYS_PER_TURN, 1]
            counting.cancel()

    asyncio.run(run())


def seed(number: int) -> PrivateKey:
    return PrivateKey(KeyType.ED25519, number.to_bytes(32, "big"))


def test_progress_of_a_restoring_is_told() -> None:
    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave({blob(pkh): OPENED[pkh] for pkh in PKHS}) as enclave:
            held = enclave.hold(1, Import)
            limits = replace(QUICK, start_s=0.0)
            opened = open_vault(
                stored(*PKHS), Endpoint(Address("127.0.0.1", enclave.port)), limits=limits, must_succeed=False
            )
            async with opened as vault:
                await enclave.wait_for(Import)
                assert (vault.link.state, vault.progress) == (State.RESTORING, (0, 4))
                assert vault.problem == "restoring: 0 of 4 keys dealt with"
                held.set()
                assert await vault.sign(TZ1, b"message") == right(TZ1)
                assert vault.progress == (4, 4)
                assert len(enclave.asked(Initialize)) == 1

    asyncio.run(run())


def test_nobody_looks_for_keys_all_the_time_while_the_enclave_is_away() -> None:
    """A key waits for its sealer, and the link is lost: there is nothing to be tried, and nothing to be busy with."""

    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        vault._ring.keys.note_unanswered(PKHS[0], "away", 0.0)
        with_link = vault._watch._pause_s()
        enclave.hang_up(1)
        await enclave.wait_until(lambda: vault.link.client is None)
        assert vault._watch._pause_s() == keys.look_s
        assert with_link >= QUICK.look_again_s

    play(scenario, limits=replace(QUICK, look_again_s=0.01))


def test_a_request_for_an_unknown_key_does_not_wait_until_others_are_tried() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        tried = enclave.hold(2, Import)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        looking = asyncio.create_task(vault.look_again())
        await enclave.wait_until(lambda: (2, Import(blob(BOB))) in enclave.calls)
        with pytest.raises(KeyNotFound):
            await find_vault([vault], ALICE)
        assert not looking.done()
        tried.set()
        await looking

    play(scenario)
