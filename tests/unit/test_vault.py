"""What a vault believes of its enclave: nothing that it has not checked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.codec import MAX_MESSAGE_BYTES
from enclave_signer.protocol.messages import (
    GenerateAndImport,
    Import,
    ImportedKey,
    ImportUnencrypted,
    KeyType,
    PrivateKey,
    ProvePossession,
    Request,
    Result,
    SealedKey,
    Sign,
    SigningVersion,
)
from enclave_signer.tezos import parse_secret_key, public_key_hash
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, KeyNotFound, MalformedRequest, StoreUnavailable
from host_backend.keystore.base import StoredKey
from host_backend.vault import Vault, find_key, open_vault
from tests.doubles.known_keys import FOUR, KEYS
from tests.doubles.scripted_enclave import ScriptedEnclave, scripted_enclave

OPENED: dict[str, SigningKey] = {
    key.name: curve(key.key_type).open(parse_secret_key(key.secret)) for key in (*FOUR, KEYS["bob"])
}
TZ1, TZ4, BOB = OPENED["tz1alias"], OPENED["tz4alias"], OPENED["bob"]
PATIENCE_S = 60.0


class MemoryKeys:
    """A key store in memory, which can be told to fail."""

    def __init__(self, *stored: StoredKey) -> None:
        self.stored = list(stored)
        self.failing = False

    async def load(self) -> tuple[StoredKey, ...]:
        return tuple(self.stored)

    async def add(self, key: StoredKey) -> bool:
        if self.failing:
            raise StoreUnavailable("the disk is full")
        if any(stored.pkh == key.pkh for stored in self.stored):
            return False
        self.stored.append(key)
        return True


def pkh(key: SigningKey) -> str:
    return public_key_hash(key.public_key)


def stored(key: SigningKey) -> StoredKey:
    return StoredKey(pkh(key), b"blob")


Scenario = Callable[[Vault, ScriptedEnclave], Awaitable[None]]


def play(store: MemoryKeys, restored: Sequence[Result], scenario: Scenario) -> None:
    """Open a vault whose enclave gives these answers to the imports of stored keys, and run a scenario."""

    async def begin(enclave: ScriptedEnclave) -> None:
        await enclave.take(1)
        await enclave.answer(None)
        for answer in restored:
            (request,) = await enclave.take(1)
            assert isinstance(request, Import)
            await enclave.answer(answer)

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), scripted_enclave() as enclave:
            beginning = asyncio.create_task(begin(enclave))
            async with open_vault(store, host="127.0.0.1", port=enclave.port) as vault:
                await beginning
                await scenario(vault, enclave)

    asyncio.run(run())


async def give(enclave: ScriptedEnclave, asked: type[Request], answer: Result) -> None:
    (request,) = await enclave.take(1)
    assert isinstance(request, asked)
    await enclave.answer(answer)


def imported(key: SigningKey) -> ImportedKey:
    return ImportedKey(key.public_key, 0)


def sealed(key: SigningKey) -> SealedKey:
    return SealedKey(b"new blob", key.public_key, 1)


@pytest.mark.parametrize("key", OPENED.values(), ids=OPENED)
def test_a_right_signature_is_given(key: SigningKey) -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        right = key.sign(b"message", SigningVersion.V2)
        answer, _ = await asyncio.gather(vault.sign(pkh(key), b"message"), give(enclave, Sign, right))
        assert answer == right

    play(MemoryKeys(stored(key)), [imported(key)], scenario)


@pytest.mark.parametrize("key", OPENED.values(), ids=OPENED)
@pytest.mark.parametrize("wrong", ["message", "byte"])
def test_a_wrong_signature_is_given_to_nobody_and_ends_the_connection(key: SigningKey, wrong: str) -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        signature = key.sign(b"another message" if wrong == "message" else b"message", SigningVersion.V2)
        if wrong == "byte":
            signature = replace(signature, data=signature.data[:-1] + bytes([signature.data[-1] ^ 1]))
        asked = asyncio.create_task(vault.sign(pkh(key), b"message"))
        await give(enclave, Sign, signature)
        with pytest.raises(EnclaveRefused, match=f"the enclave's signature does not verify for {pkh(key)}"):
            await asked
        await enclave.ended.wait()
        assert vault.problem is not None
        with pytest.raises(EnclaveUnavailable):
            await vault.sign(pkh(key), b"message")

    play(MemoryKeys(stored(key)), [imported(key)], scenario)


def test_a_signature_of_another_curve_is_given_to_nobody() -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        asked = asyncio.create_task(vault.sign(pkh(TZ1), b"message"))
        await give(enclave, Sign, TZ4.sign(b"message", SigningVersion.V2))
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await asked

    play(MemoryKeys(stored(TZ1)), [imported(TZ1)], scenario)


def test_the_version_that_was_asked_for_is_verified() -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        asked = asyncio.create_task(vault.sign(pkh(TZ4), b"message", SigningVersion.V1))
        await give(enclave, Sign, TZ4.sign(b"message", SigningVersion.V2))
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await asked

    play(MemoryKeys(stored(TZ4)), [imported(TZ4)], scenario)


def test_another_key_than_the_stored_one_is_quarantined() -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        assert vault.keys == ()
        assert vault.quarantined == {pkh(TZ1): f"its blob holds another key, {pkh(BOB)}"}
        with pytest.raises(EnclaveRefused, match="is out of service: its blob holds another key"):
            await vault.sign(pkh(TZ1), b"message")
        with pytest.raises(EnclaveRefused):
            find_key([vault], pkh(TZ1))
        with pytest.raises(KeyNotFound):
            find_key([vault], pkh(BOB))
        assert enclave.calls.empty()

    play(MemoryKeys(stored(TZ1)), [imported(BOB)], scenario)


def test_a_generated_key_is_announced_only_when_it_is_stored() -> None:
    store = MemoryKeys()

    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        store.failing = True
        asked = asyncio.create_task(vault.generate(KeyType.ED25519))
        await give(enclave, GenerateAndImport, sealed(TZ1))
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await asked
        assert not store.stored
        store.failing = False
        key, _ = await asyncio.gather(vault.generate(KeyType.ED25519), give(enclave, GenerateAndImport, sealed(TZ1)))
        assert vault.keys == (key,)
        assert list(store.stored) == [StoredKey(pkh(TZ1), b"new blob")]

    play(store, [], scenario)


def test_a_generated_key_of_another_curve_is_not_kept() -> None:
    store = MemoryKeys()

    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        asked = asyncio.create_task(vault.generate(KeyType.ED25519))
        await give(enclave, GenerateAndImport, sealed(TZ4))
        with pytest.raises(EnclaveRefused, match="made a key of type Bls, not Ed25519"):
            await asked
        assert (vault.keys, store.stored) == ((), [])

    play(store, [], scenario)


def test_an_imported_key_must_come_back_as_itself() -> None:
    store = MemoryKeys()
    secret = parse_secret_key(FOUR[0].secret)

    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        asked = asyncio.create_task(vault.import_key(secret))
        await give(enclave, ImportUnencrypted, sealed(BOB))
        with pytest.raises(EnclaveRefused, match="sealed another key than it was given: nothing was stored"):
            await asked
        assert (vault.keys, store.stored) == ((), [])

    play(store, [], scenario)


def test_what_is_no_private_key_does_not_reach_the_enclave() -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        for key_type, data in ((KeyType.P256, bytes(32)), (KeyType.BLS, b"\xff" * 32), (KeyType.ED25519, b"short")):
            with pytest.raises(MalformedRequest, match="not a private key"):
                await vault.import_key(PrivateKey(key_type, data))
        assert enclave.calls.empty()

    play(MemoryKeys(), [], scenario)


def test_what_cannot_be_signed_does_not_reach_the_enclave() -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        with pytest.raises(KeyNotFound, match="is not in vault"):
            await vault.sign(pkh(BOB), b"message")
        with pytest.raises(MalformedRequest, match="version 0 cannot be signed by a tz4 key"):
            await vault.sign(pkh(TZ4), b"message", SigningVersion.V0)
        with pytest.raises(MalformedRequest, match=f"message of {MAX_MESSAGE_BYTES + 1} bytes, the limit is"):
            await vault.sign(pkh(TZ4), bytes(MAX_MESSAGE_BYTES + 1))
        with pytest.raises(MalformedRequest, match="only tz4 keys have it"):
            await vault.prove_possession(pkh(TZ1))
        assert enclave.calls.empty()

    play(MemoryKeys(stored(TZ4), stored(TZ1)), [imported(TZ4), ImportedKey(TZ1.public_key, 1)], scenario)


def test_proofs_of_possession_are_verified() -> None:
    async def scenario(vault: Vault, enclave: ScriptedEnclave) -> None:
        right = TZ4.prove_possession()
        proof, _ = await asyncio.gather(vault.prove_possession(pkh(TZ4)), give(enclave, ProvePossession, right))
        assert proof == right
        asked = asyncio.create_task(vault.prove_possession(pkh(TZ4)))
        await give(enclave, ProvePossession, TZ4.sign(TZ4.public_key.data, SigningVersion.V2))
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await asked

    play(MemoryKeys(stored(TZ4)), [imported(TZ4)], scenario)
