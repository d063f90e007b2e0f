"""A vault and keys whose release has ended, or that are not released yet: named, no fault of the vault, back by themselves."""

import asyncio

import pytest

from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import Import, Request, Sign
from host_backend.enclave.supervisor import State
from host_backend.errors import EnclaveRefused, NotReleased, ReleaseDenied
from host_backend.keystore.base import StoredKey
from host_backend.vault.vault import Vault
from tests.doubles.auto_enclave import HANDLES_APART, AutoEnclave
from tests.doubles.linked_vault import BOB, PKHS, TZ1, TZ2, blob, play, right, stored
from tests.doubles.memory_keys import MemoryKeys

HELD = WireError("not released yet: wait")
DENIED = WireError("release denied: no")
TOLD = "the enclave's sealer: not released yet: wait"


def lapse(enclave: AutoEnclave, answer: WireError, *, until_import: bool = False) -> None:
    """Let the enclave refuse every use of TZ2; until it is imported again, or for good."""
    lapsed = True

    def instead(_: int, request: Request) -> WireError | None:
        nonlocal lapsed
        if request == Import(blob(TZ2)):
            lapsed = lapsed and not until_import
            return answer if lapsed else None
        # It was opened as the second of all.
        return answer if lapsed and isinstance(request, Sign) and request.handle % HANDLES_APART == 1 else None

    enclave.instead = instead


def test_a_key_that_is_not_released_yet_is_no_fault() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        lapse(enclave, HELD)
        enclave.hang_up()
        assert await vault.sign(TZ1, b"message") == right(TZ1)
        assert (vault.link.state, vault.problem, vault.degraded) == (State.READY, None, [])
        assert (vault.unreleased, vault.out_of_service) == ({TZ2: TOLD}, {TZ2: TOLD})
        with pytest.raises(NotReleased, match=f"{TZ2} is not open: {TOLD}"):
            await vault.sign(TZ2, b"message")
        enclave.instead = lambda _, __: None
        vault.retry()
        await vault.look_again()
        assert await vault.sign(TZ2, b"message") == right(TZ2)
        assert vault.unreleased == {}

    play(scenario)


def test_a_key_whose_release_has_ended_is_released_again_within_the_requests() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        lapse(enclave, HELD, until_import=True)
        before = len(enclave.asked(Import))
        signatures = await asyncio.gather(*(vault.sign(TZ2, b"message") for _ in range(20)))
        assert {*signatures} == {right(TZ2)}
        # Once for all, beside the connection in service.
        (again,) = enclave.asked(Import)[before:]
        assert again == (2, Import(blob(TZ2)))
        assert (vault.unreleased, vault.link.generation) == ({}, 1)

    play(scenario)


def test_a_denied_key_is_not_asked_for_any_more() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        lapse(enclave, DENIED)
        with pytest.raises(ReleaseDenied, match="release denied: no"):
            await vault.sign(TZ2, b"message")
        asked = len(enclave.calls)
        with pytest.raises(EnclaveRefused, match=f"{TZ2} is out of service: the enclave refused: release denied: no"):
            await vault.sign(TZ2, b"message")
        assert len(enclave.calls) == asked
        assert (vault.serves(TZ2), vault.degraded) == (False, [f"{TZ2}: the enclave refused: release denied: no"])
        enclave.instead = lambda _, __: None
        vault.retry()
        await vault.look_again()
        # The handle is the one that it was.
        assert (await vault.sign(TZ2, b"message"), vault.link.generation) == (right(TZ2), 1)

    play(scenario)


@pytest.mark.parametrize("answer", [HELD, DENIED])
@pytest.mark.parametrize("used", [False, True])
def test_what_is_not_released_keeps_no_new_connection_out(answer: WireError, *, used: bool) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, keys: MemoryKeys) -> None:
        lapse(enclave, answer)
        if used:
            with pytest.raises((NotReleased, ReleaseDenied)):
                await vault.sign(TZ2, b"message")
        keys.stored.append(StoredKey(BOB, blob(BOB)))
        await vault.look_again()
        assert await vault.sign(BOB, b"message") == right(BOB)
        assert (vault.link.generation, vault.serves(TZ2), [*vault.out_of_service]) == (2, False, [TZ2])
        enclave.instead = lambda _, __: None
        vault.retry()
        await vault.look_again()
        assert await vault.sign(TZ2, b"message") == right(TZ2)

    play(scenario, store=stored(*PKHS))
