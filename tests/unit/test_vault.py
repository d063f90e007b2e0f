"""What a vault believes of its enclave: nothing that it has not checked."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn, cast

import pytest

from enclave_signer.curves import Expected, SigningKey, curve, expected_signature
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import (
    MAX_MESSAGE_BYTES,
    GetPublicKeyFrom,
    ImportUnencrypted,
    KeyType,
    PrivateKey,
    ProvePossession,
    ProvePossessionOf,
    PublicKey,
    SealedKey,
    Sign,
    Signature,
    SigningVersion,
)
from enclave_signer.tezos import parse_secret_key, public_key_hash
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.supervisor import LinkLimits, State
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, KeyNotFound, MalformedRequest, StoreUnavailable
from host_backend.keystore.base import StoredKey
from host_backend.vault import ahead as ahead_module
from host_backend.vault import batches
from host_backend.vault.choice import find_vault
from host_backend.vault.vault import Vault, open_vault
from host_backend.vault.verification import VerifyBls
from tests.conformance.test_bls import G1_OUTSIDE
from tests.doubles.auto_enclave import AutoEnclave, auto_enclave, wrong_signature
from tests.doubles.known_keys import FOUR, KEYS
from tests.doubles.memory_keys import MemoryKeys

OPENED: dict[str, SigningKey] = {
    key.name: curve(key.key_type).open(parse_secret_key(key.secret)) for key in (*FOUR, KEYS["bob"])
}
TZ1, TZ4, BOB = OPENED["tz1alias"], OPENED["tz4alias"], OPENED["bob"]
PATIENCE_S = 60.0


def pkh(key: SigningKey) -> str:
    return public_key_hash(key.public_key)


def blob(key: SigningKey) -> bytes:
    return b"blob of " + key.public_key.data


def stored(key: SigningKey) -> StoredKey:
    return StoredKey(pkh(key), blob(key))


Scenario = Callable[[Vault, AutoEnclave], Awaitable[None]]
#: A request waits for the next connection, and no connection follows.
NO_WAITING = LinkLimits(ready_s=0.01, first_pause_s=3600, longest_pause_s=3600, wanted_s=3600, patience_s=60)
#: For what must come into service first.
WAITING = replace(NO_WAITING, ready_s=PATIENCE_S)


def play(
    store: MemoryKeys,
    scenario: Scenario,
    *,
    opens_as: Mapping[bytes, SigningKey] | None = None,
    in_background: bool = False,
    limits: LinkLimits = NO_WAITING,
) -> None:
    """Open a vault whose enclave opens these blobs, or all of the store as what they are, and run a scenario."""
    blobs = {blob(key): key for key in OPENED.values()} if opens_as is None else opens_as

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), auto_enclave(blobs) as enclave:
            verify_bls: VerifyBls = "background" if in_background else "inline"
            opened = open_vault(
                store, Endpoint(Address("127.0.0.1", enclave.port)), limits=limits, verify_bls=verify_bls
            )
            async with opened as vault:
                enclave.calls.clear()
                await scenario(vault, enclave)

    asyncio.run(run())


@pytest.mark.parametrize("key", OPENED.values(), ids=OPENED)
def test_a_right_signature_is_given(key: SigningKey) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        assert await vault.sign(pkh(key), b"message") == key.sign(b"message", SigningVersion.V2)

    play(MemoryKeys(stored(key)), scenario)


@pytest.mark.parametrize("key", OPENED.values(), ids=OPENED)
@pytest.mark.parametrize("wrong", ["message", "byte"])
def test_a_wrong_signature_is_given_to_nobody_and_ends_the_connection(
    key: SigningKey, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    signature = key.sign(b"another message" if wrong == "message" else b"message", SigningVersion.V2)
    if wrong == "byte":
        signature = signature._replace(data=signature.data[:-1] + bytes([signature.data[-1] ^ 1]))

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        enclave.instead = lambda _, request: signature if isinstance(request, Sign) else None
        with pytest.raises(EnclaveRefused, match=f"the enclave's signature does not verify for {pkh(key)}"):
            await vault.sign(pkh(key), b"message")
        assert vault.problem is not None
        assert vault.verification.failures == 1
        assert "ERROR    host_backend.vault.verification:" in caplog.text
        with pytest.raises(EnclaveUnavailable, match="the connection to the enclave was closed"):
            await vault.sign(pkh(key), b"message")
        # No one asked again for what was signed wrongly.
        assert len(enclave.asked(Sign)) == 1

    play(MemoryKeys(stored(key)), scenario)


def test_in_the_background_a_wrong_signature_of_bls_ends_the_connection_right_after(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        assert await vault.sign(pkh(TZ4), b"message") == TZ4.sign(b"message", SigningVersion.V2)
        enclave.instead = wrong_signature(TZ4)
        assert await vault.sign(pkh(TZ4), b"message") == TZ4.sign(b"another message", SigningVersion.V2)
        await enclave.wait_until(lambda: vault.problem is not None)
        assert (vault.verification.failures, vault.problem) == (1, "the connection to the enclave was closed")
        assert f"the enclave's signature does not verify for {pkh(TZ4)}" in caplog.text

    play(MemoryKeys(stored(TZ4)), scenario, in_background=True)


def test_in_the_background_a_signature_that_a_bug_leaves_unverified_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def verify_each(_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(batches, "verify_each", verify_each)

    async def scenario(vault: Vault, _: AutoEnclave) -> None:
        assert await vault.sign(pkh(TZ4), b"message") == TZ4.sign(b"message", SigningVersion.V2)

    play(MemoryKeys(stored(TZ4)), scenario, in_background=True)
    assert "a signature that was released is not verified, because of a bug" in caplog.text


@pytest.mark.parametrize("key", [TZ1, OPENED["tz2alias"], OPENED["tz3alias"]], ids=["tz1", "tz2", "tz3"])
def test_in_the_background_other_curves_are_still_verified_before(key: SigningKey) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        enclave.instead = wrong_signature(key)
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.sign(pkh(key), b"message")

    play(MemoryKeys(stored(key)), scenario, in_background=True)


def test_a_signature_of_another_curve_is_given_to_nobody() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        wrong = TZ4.sign(b"message", SigningVersion.V2)
        enclave.instead = lambda _, request: wrong if isinstance(request, Sign) else None
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.sign(pkh(TZ1), b"message")

    play(MemoryKeys(stored(TZ1)), scenario)


def test_the_version_that_was_asked_for_is_verified() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        wrong = TZ4.sign(b"message", SigningVersion.V2)
        enclave.instead = lambda _, request: wrong if isinstance(request, Sign) else None
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.sign(pkh(TZ4), b"message", SigningVersion.V1)

    play(MemoryKeys(stored(TZ4)), scenario)


def test_another_key_than_the_stored_one_is_quarantined() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        assert vault.keys == ()
        assert vault.quarantined == {pkh(TZ1): f"its blob holds another key, {pkh(BOB)}"}
        assert vault.degraded == [f"{pkh(TZ1)}: its blob holds another key, {pkh(BOB)}"]
        assert (vault.link.state, vault.problem) == (State.DEGRADED, None)
        with pytest.raises(EnclaveRefused, match="is out of service: its blob holds another key"):
            await vault.sign(pkh(TZ1), b"message")
        with pytest.raises(EnclaveRefused):
            await find_vault([vault], pkh(TZ1))
        with pytest.raises(KeyNotFound):
            await find_vault([vault], pkh(BOB))
        assert not enclave.calls

    play(MemoryKeys(stored(TZ1)), scenario, opens_as={blob(TZ1): BOB})


def test_a_generated_key_is_announced_only_when_it_is_stored() -> None:
    store = MemoryKeys()

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        store.failing = True
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await vault.provisioning.generate(KeyType.ED25519)
        assert (vault.keys, store.stored) == ((), [])
        store.failing = False
        key = await vault.provisioning.generate(KeyType.ED25519)
        assert vault.keys == (key,)
        assert [stored.pkh for stored in store.stored] == [key.pkh]
        assert await vault.sign(key.pkh, b"message")

    play(store, scenario, limits=WAITING)


def test_a_generated_key_of_another_curve_is_not_kept() -> None:
    store = MemoryKeys()

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        enclave.next_key = TZ4
        with pytest.raises(EnclaveRefused, match="made a key of type Bls, not Ed25519"):
            await vault.provisioning.generate(KeyType.ED25519)
        assert (vault.keys, store.stored) == ((), [])

    play(store, scenario)


def test_an_imported_key_must_come_back_as_itself() -> None:
    store = MemoryKeys()
    secret = parse_secret_key(FOUR[0].secret)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        wrong = SealedKey(b"new blob", BOB.public_key, 1)
        enclave.instead = lambda _, request: wrong if isinstance(request, ImportUnencrypted) else None
        with pytest.raises(EnclaveRefused, match="sealed another key than it was given: nothing was stored"):
            await vault.provisioning.import_key(secret)
        assert (vault.keys, store.stored) == ((), [])

    play(store, scenario)


def test_a_key_out_of_service_is_replaced_only_on_purpose() -> None:
    store = MemoryKeys(StoredKey(pkh(TZ1), b"bad"), StoredKey(pkh(BOB), blob(BOB)))
    secret = parse_secret_key(FOUR[0].secret)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        with pytest.raises(EnclaveRefused, match="is stored already, and does not open: its blob holds another key"):
            await vault.provisioning.import_key(secret)
        # The secret did not leave for that.
        assert enclave.asked(ImportUnencrypted) == []
        assert (await vault.provisioning.import_key(secret, replace=True))[0].pkh == pkh(TZ1)
        assert [key.pkh for key in store.stored] == [pkh(TZ1), pkh(BOB)]
        assert store.stored[0].blob != b"bad"
        assert vault.quarantined == {}
        assert await vault.sign(pkh(TZ1), b"message") == TZ1.sign(b"message", SigningVersion.V2)
        # A good one stays, also when asked to be replaced.
        before = list(store.stored)
        enclave.instead = lambda _, request: (
            SealedKey(b"newer", TZ1.public_key, 1) if isinstance(request, ImportUnencrypted) else None
        )
        await vault.provisioning.import_key(secret, replace=True)
        assert store.stored == before

    play(store, scenario, opens_as={b"bad": BOB, blob(BOB): BOB}, limits=WAITING)


def test_a_key_that_is_only_in_memory_does_not_count_as_stored_well() -> None:
    """It opens for `Import`, as the enclave remembers it; its sealer does not open it any more."""
    store = MemoryKeys(StoredKey(pkh(TZ1), b"old"))
    secret = parse_secret_key(FOUR[0].secret)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        gone = WireError("the key-encryption key is destroyed")
        enclave.instead = lambda _, request: gone if isinstance(request, GetPublicKeyFrom) else None
        with pytest.raises(EnclaveRefused, match=r"is stored already, and does not open: .*is destroyed"):
            await vault.provisioning.import_key(secret)
        await vault.provisioning.import_key(secret, replace=True)
        assert [key.blob for key in store.stored] != [b"old"]

    play(store, scenario, opens_as={b"old": TZ1})


def test_what_is_no_private_key_does_not_reach_the_enclave() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        for key_type, data in ((KeyType.P256, bytes(32)), (KeyType.BLS, b"\xff" * 32), (KeyType.ED25519, b"short")):
            with pytest.raises(MalformedRequest, match="not a private key"):
                await vault.provisioning.import_key(PrivateKey(key_type, data))
        assert not enclave.calls

    play(MemoryKeys(), scenario)


def test_what_cannot_be_signed_does_not_reach_the_enclave() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        with pytest.raises(KeyNotFound, match="is not in vault"):
            await vault.sign(pkh(BOB), b"message")
        with pytest.raises(MalformedRequest, match="version 0 cannot be signed by a tz4 key"):
            await vault.sign(pkh(TZ4), b"message", SigningVersion.V0)
        with pytest.raises(MalformedRequest, match=f"message of {MAX_MESSAGE_BYTES + 1} bytes, the limit is"):
            await vault.sign(pkh(TZ4), bytes(MAX_MESSAGE_BYTES + 1))
        with pytest.raises(MalformedRequest, match="only tz4 keys have it"):
            await vault.prove_possession(pkh(TZ1))
        assert not enclave.calls

    play(MemoryKeys(stored(TZ4), stored(TZ1)), scenario)


def test_proofs_for_another_key() -> None:
    another = KEYS["tz4pop"]
    other = PublicKey(KeyType.BLS, another.public_key_bytes)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        proof = await vault.prove_possession(pkh(TZ4), other)
        assert proof == TZ4.prove_possession(other) != TZ4.prove_possession()
        wrong = TZ4.prove_possession()
        enclave.instead = lambda _, request: wrong if isinstance(request, ProvePossessionOf) else None
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.prove_possession(pkh(TZ4), other)

    play(MemoryKeys(stored(TZ4)), scenario)


def test_no_proof_for_what_is_no_key() -> None:
    infinity = bytes([0xC0]) + bytes(47)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        for data in (infinity, bytes(48), G1_OUTSIDE):
            with pytest.raises(MalformedRequest, match="no proof of possession for that key: not a public key of Bls"):
                await vault.prove_possession(pkh(TZ4), PublicKey(KeyType.BLS, data))
        assert not enclave.asked(ProvePossessionOf)

    play(MemoryKeys(stored(TZ4)), scenario)


@pytest.mark.parametrize("in_background", [False, True])
def test_proofs_of_possession_are_verified_before_they_are_given(*, in_background: bool) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        assert await vault.prove_possession(pkh(TZ4)) == TZ4.prove_possession()
        wrong = TZ4.sign(TZ4.public_key.data, SigningVersion.V2)
        enclave.instead = lambda _, request: wrong if isinstance(request, ProvePossession) else None
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.prove_possession(pkh(TZ4))

    play(MemoryKeys(stored(TZ4)), scenario, in_background=in_background)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda vault: vault.provisioning.generate("tz1"), "key_type must be KeyType, not str: name one of them"),
        (
            lambda vault: vault.provisioning.import_key(KEYS["bob"].secret),
            "private_key must be PrivateKey, not str: parse_",
        ),
        (lambda vault: vault.sign(pkh(TZ1), "03ab"), "message must be bytes, not str: give the bytes"),
        (lambda vault: vault.sign(TZ1.public_key, b"3"), "pkh must be str, not PublicKey"),
        (lambda vault: vault.sign(pkh(TZ1), b"3", 2), "version must be SigningVersion, not int"),
    ],
)
def test_arguments_of_another_kind(call: Callable[[Vault], Awaitable[object]], text: str) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        with pytest.raises(TypeError, match=text) as refusal:
            await call(vault)
        assert KEYS["bob"].secret not in str(refusal.value)
        assert not enclave.calls

    play(MemoryKeys(stored(TZ1)), scenario)


class Ahead:
    """Counts the verifications that were begun before there was a signature."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        monkeypatch.setattr(ahead_module, "expected_signature", self._expected)

    def _expected(self, *of: Any) -> Any:
        ahead, expected = self, cast("Expected", expected_signature(*of))

        class Counted:
            def prepare(self) -> None:
                expected.prepare()
                ahead.begun += 1

            def verify(self, signature: Signature) -> None:
                expected.verify(signature)

        return Counted()


def test_a_lone_bls_request_is_verified_in_part_while_the_enclave_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        assert await vault.sign(pkh(TZ4), b"message") == TZ4.sign(b"message", SigningVersion.V2)
        assert ahead.begun == 1
        enclave.instead = wrong_signature(TZ4)
        with pytest.raises(EnclaveRefused, match="does not verify"):
            await vault.sign(pkh(TZ4), b"message")
        assert ahead.begun == 2

    play(MemoryKeys(stored(TZ4)), scenario)


def test_of_several_bls_requests_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, _: AutoEnclave) -> None:
        asked = [vault.sign(pkh(TZ4), b"message %d" % number) for number in range(3)]
        assert await asyncio.gather(*asked) == [
            TZ4.sign(b"message %d" % number, SigningVersion.V2) for number in range(3)
        ]

    play(MemoryKeys(stored(TZ4)), scenario)
    assert not ahead.begun


def test_what_was_begun_for_a_caller_that_left_is_of_no_use_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        client, answer = vault.link.client, enclave.hold(1, Sign)
        assert client is not None
        left = asyncio.create_task(vault.sign(pkh(TZ4), b"left"))
        await enclave.wait_until(lambda: ahead.begun == 1)
        left.cancel()
        other = asyncio.create_task(vault.sign(pkh(TZ4), b"other"))
        await enclave.wait_until(lambda: client.calls_in_flight == 2)
        answer.set()
        assert await other == TZ4.sign(b"other", SigningVersion.V2)
        assert vault.verification.failures == 0

    play(MemoryKeys(stored(TZ4)), scenario)


def test_what_was_begun_serves_the_signature_of_the_next_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, enclave: AutoEnclave) -> None:
        enclave.hold(1, Sign)
        asked = asyncio.create_task(vault.sign(pkh(TZ4), b"message"))
        await enclave.wait_until(lambda: ahead.begun == 1)
        enclave.hang_up(1)
        assert await asked == TZ4.sign(b"message", SigningVersion.V2)

    play(MemoryKeys(stored(TZ4)), scenario, limits=LinkLimits())


def test_nothing_is_begun_for_what_is_verified_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, _: AutoEnclave) -> None:
        await vault.sign(pkh(TZ4), b"message")

    play(MemoryKeys(stored(TZ4)), scenario, in_background=True)
    assert not ahead.begun


def test_after_several_the_next_lone_one_is_not_begun_but_the_one_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCHES", 1)
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, _: AutoEnclave) -> None:
        await asyncio.gather(*(vault.sign(pkh(TZ4), b"message %d" % number) for number in range(3)))
        await vault.sign(pkh(TZ4), b"the next")
        assert ahead.begun == 0
        await vault.sign(pkh(TZ4), b"the one after")
        assert ahead.begun == 1

    play(MemoryKeys(stored(TZ4)), scenario)


def test_beside_a_key_of_another_curve_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = Ahead(monkeypatch)

    async def scenario(vault: Vault, _: AutoEnclave) -> None:
        await vault.sign(pkh(BOB), b"message")
        await vault.sign(pkh(TZ4), b"message")
        assert ahead.begun == 0
        await vault.sign(pkh(TZ4), b"another")
        assert ahead.begun == 1

    play(MemoryKeys(stored(TZ4), stored(BOB)), scenario)
