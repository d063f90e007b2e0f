"""What the host holds a key to whose curve never bakes, whatever its policy and its configuration say."""

import asyncio
from collections.abc import Callable

import pytest

from enclave_signer.curves import curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, Sign, SigningVersion
from enclave_signer.tezos import public_key_hash
from host_backend.errors import EnclaveRefused, MalformedRequest, PolicyDenied
from host_backend.operations.messages import REQUEST_KINDS
from host_backend.policy import KeyPolicy
from host_backend.signer import Signer
from host_backend.vault.vault import Vault
from host_backend.watermark.memory import MemoryWatermarkStore
from tests.doubles.auto_enclave import AutoEnclave, wrong_signature
from tests.doubles.failing_vault import FailingVault
from tests.doubles.known_keys import attestation, attestation_with_dal, block, preattestation, transaction
from tests.doubles.linked_vault import OPENED, play, stored
from tests.doubles.memory_keys import MemoryKeys

KEY = curve(KeyType.ML_DSA_44).open(PrivateKey(KeyType.ML_DSA_44, curve(KeyType.ML_DSA_44).known_answer.private_key))
TZ5 = public_key_hash(KEY.public_key)
ANYTHING = KeyPolicy(REQUEST_KINDS, frozenset({"transaction"}))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPENED, TZ5, KEY)


@pytest.mark.parametrize("make", [block, preattestation, attestation, attestation_with_dal])
def test_consensus_messages_are_refused_whatever_the_policy_says(make: Callable[[int], bytes]) -> None:
    marks = MemoryWatermarkStore()
    signer = Signer({TZ5: ANYTHING}, [FailingVault(TZ5)], marks)
    with pytest.raises(PolicyDenied, match=f"^tz5 keys never bake: {TZ5} signs operations only$"):
        asyncio.run(signer.sign(TZ5, make(5)))
    assert asyncio.run(signer.sign(TZ5, transaction(1))).key_type is KeyType.ML_DSA_44


@pytest.mark.parametrize("version", [SigningVersion.V0, SigningVersion.V1, SigningVersion.V2])
def test_older_versions_never_reach_the_enclave(version: SigningVersion) -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        with pytest.raises(MalformedRequest, match=r"by a tz5 key: it has only the latest one: leave `version` out$"):
            await vault.sign(TZ5, transaction(1), version)
        assert enclave.asked(Sign) == []

    play(scenario, store=stored(TZ5))


def test_a_signature_is_verified_before_release_even_where_others_are_verified_after_it() -> None:
    async def scenario(vault: Vault, enclave: AutoEnclave, _: MemoryKeys) -> None:
        await vault.sign(TZ5, transaction(1))
        enclave.instead = wrong_signature(KEY)
        with pytest.raises(EnclaveRefused, match=f"the enclave's signature does not verify for {TZ5}"):
            await vault.sign(TZ5, transaction(1))
        assert vault.verification.failures == 1

    play(scenario, store=stored(TZ5), verify_bls="background")
