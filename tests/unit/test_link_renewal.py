"""New keys come with a new connection, which replaces the one in service, or changes nothing."""

import asyncio
from dataclasses import replace

import pytest

from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import Import, KeyType, Sign
from host_backend.enclave.supervisor import State
from host_backend.errors import EnclaveUnavailable
from host_backend.keystore.base import StoredKey
from host_backend.vault.vault import Vault
from tests.doubles.auto_enclave import AutoEnclave
from tests.doubles.linked_vault import ALICE, BOB, PKHS, QUICK, TZ1, TZ2, blob, play, right
from tests.doubles.memory_keys import MemoryKeys


def test_what_is_in_flight_on_a_connection_that_is_replaced_is_answered_there() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        held = enclave.hold(1, Sign)
        asked = asyncio.create_task(vault.sign(TZ1, b"message"))
        await enclave.wait_for(Sign)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        # The key of another connection is answered there, while this one's still waits.
        assert await vault.sign(BOB, b"message") == right(BOB)
        assert await vault.sign(TZ2, b"message") == right(TZ2)
        assert (asked.done(), enclave.open_connections) == (False, {1, 2, 3})
        held.set()
        assert await asked == right(TZ1)
        await enclave.wait_until(lambda: enclave.open_connections == {2, 3})
        assert [number for number, _ in enclave.asked(Sign)] == [1, 3, 3]
        assert (vault.link.state, vault.link.retries) == (State.READY, 0)

    play(scenario)


def test_a_replaced_connection_that_breaks_has_its_calls_asked_on_the_present_one() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.hold(1, Sign)
        asked = asyncio.create_task(vault.sign(TZ1, b"message"))
        await enclave.wait_for(Sign)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        assert await vault.sign(BOB, b"message") == right(BOB)
        enclave.hang_up(1)
        assert await asked == right(TZ1)
        assert (vault.link.state, vault.link.generation, vault.link.reconnects, vault.link.retries) == (
            State.READY,
            2,
            0,
            1,
        )

    play(scenario)


def test_a_connection_that_opens_less_does_not_replace_the_one_in_service(caplog: pytest.LogCaptureFixture) -> None:
    """The sealer fails for a key that signs: it goes on signing, and the new one comes when the sealer is well."""
    away = WireError("the sealer is away")
    refused = Import(blob(TZ2))

    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.instead = lambda _, request: away if request == refused else None
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        # More than once: it is tried again, and reported once.
        await enclave.wait_until(lambda: len([call for _, call in enclave.calls if call == refused]) > 3)
        reason = f"{TZ2} signs, and does not open on a new connection: the enclave refused: the sealer is away"
        assert vault.degraded == [f"vault: new keys are not in service yet: {reason}"]
        assert (vault.link.state, vault.problem, vault.quarantined) == (State.READY, None, {})
        assert [await vault.sign(pkh, b"message") for pkh in PKHS] == [right(pkh) for pkh in PKHS]
        assert {number for number, _ in enclave.asked(Sign)} == {vault.link.generation} == {1}
        enclave.instead = lambda _, __: None
        assert await vault.sign(BOB, b"message") == right(BOB)
        assert (vault.degraded, vault.link.generation, vault.link.reconnects) == ([], 2, 0)
        assert caplog.text.count(reason) == 1

    play(scenario)


def test_a_connection_that_breaks_before_it_is_in_service_is_made_again() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.hold(3, Import)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        await enclave.wait_until(lambda: 3 in {number for number, _ in enclave.asked(Import)})
        enclave.hang_up(3)
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert await vault.sign(BOB, b"message") == right(BOB)
        assert {number for number, _ in enclave.asked(Sign)} <= {1, 4}
        assert (vault.link.state, vault.link.generation, vault.link.reconnects) == (State.READY, 2, 0)

    play(scenario)


def test_a_link_that_ends_while_new_keys_are_brought_in_comes_back_with_all_of_them() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        held = enclave.hold(3, Import)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        await enclave.wait_until(lambda: 3 in {number for number, _ in enclave.asked(Import)})
        enclave.hang_up(1)
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert await vault.sign(BOB, b"message") == right(BOB)
        held.set()
        await enclave.wait_until(lambda: enclave.open_connections == {2, 4})
        assert {number for number, _ in enclave.asked(Sign)} == {4}
        assert (vault.link.state, vault.link.generation, vault.link.reconnects) == (State.READY, 2, 1)
        assert vault.degraded == []

    play(scenario)


def test_a_new_key_does_not_wait_because_of_a_link_that_ended() -> None:
    """No third connection is granted, so that new keys are far away; then the link ends, and is well again."""
    hour = replace(QUICK, first_pause_s=3600, longest_pause_s=3600, reopen_s=3600, wanted_s=0.0)

    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.granted = 2
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        await enclave.wait_until(lambda: vault.degraded != [])
        enclave.granted = None
        enclave.hang_up()
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert (vault.serves(BOB), vault.degraded) == (True, [])
        key = await vault.provisioning.generate(KeyType.ED25519)
        assert await vault.sign(key.pkh, b"message")

    play(scenario, limits=hour)


def test_a_blob_that_does_not_open_is_not_asked_of_a_new_connection() -> None:
    """Its sealer may take long to say no, or say nothing: that would keep out all other new keys."""

    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        keys.stored.append(StoredKey(ALICE, b"bad"))
        await vault.look_again()
        assert vault.quarantined == {ALICE: "the enclave refused: blob corrupt"}
        enclave.hold_call(Import(b"bad"))
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        assert await vault.sign(BOB, b"message") == right(BOB)
        assert [number for number, call in enclave.calls if call == Import(b"bad")] == [2]
        assert (vault.link.state, vault.link.generation) == (State.DEGRADED, 2)

    play(scenario)


def test_a_blob_that_is_tried_out_for_long_is_not_asked_of_a_new_connection() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        opened = enclave.hold_call(Import(blob(ALICE)))
        keys.stored.extend(StoredKey(pkh, blob(pkh)) for pkh in (BOB, ALICE))
        looking = asyncio.create_task(vault.look_again())
        # Nor does it delay the other key, which opened before it.
        await enclave.wait_until(lambda: vault.serves(BOB))
        assert [number for number, call in enclave.calls if call == Import(blob(ALICE))] == [2]
        assert not looking.done()
        opened.set()
        await looking
        assert await vault.sign(ALICE, b"message") == right(ALICE)
        assert (vault.link.state, vault.link.generation) == (State.READY, 3)

    play(scenario)


def test_a_blob_that_gets_no_answer_is_tried_out_after_the_others_next_time() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.hold_call(Import(blob(ALICE)))
        keys.stored.extend(StoredKey(pkh, blob(pkh)) for pkh in (ALICE, BOB))
        looking = asyncio.create_task(vault.look_again())
        await enclave.wait_until(lambda: (2, Import(blob(ALICE))) in enclave.calls)
        enclave.hang_up(2)
        await looking
        assert not vault.serves(BOB)
        looking = asyncio.create_task(vault.look_again())
        await enclave.wait_until(lambda: vault.serves(BOB))
        assert not looking.done()
        looking.cancel()

    play(scenario)


def test_keys_that_come_one_after_another_share_a_connection() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        opened = enclave.hold(3, Import)
        made = [await vault.provisioning.generate(KeyType.ED25519) for _ in range(20)]
        opened.set()
        for key in made:
            assert await vault.sign(key.pkh, b"message")
        # For signatures, for new keys, for the first of them, and for all others.
        assert enclave.connections == 4

    play(scenario)


def test_the_vault_can_be_closed_while_new_keys_are_brought_in() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        enclave.hold(3, Import)
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        await enclave.wait_until(lambda: 3 in {number for number, _ in enclave.asked(Import)})
        asked = asyncio.create_task(vault.sign(BOB, b"message"))
        await asyncio.sleep(0)
        await vault.aclose()
        with pytest.raises(EnclaveUnavailable, match="was closed"):
            await asked
        await enclave.wait_until(lambda: enclave.open_connections <= {3})

    play(scenario)


def test_whoever_leaves_while_its_key_is_tried_out_leaves_a_key_that_comes_into_service() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        tried = enclave.hold(2, Import)
        generating = asyncio.create_task(vault.provisioning.generate(KeyType.ED25519))
        await enclave.wait_until(lambda: 2 in {number for number, _ in enclave.asked(Import)})
        generating.cancel()
        await asyncio.wait([generating])
        tried.set()
        assert await vault.sign(keys.stored[-1].pkh, b"message")

    play(scenario)
