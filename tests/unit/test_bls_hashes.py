"""What a message hashes to is kept for the next BLS key that signs it, and changes no signature."""

import pytest

from enclave_signer.curves import bls, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, SigningVersion

BLS = curve(KeyType.BLS)
KEYS = [BLS.open(PrivateKey(KeyType.BLS, number.to_bytes(32))) for number in (1, 2, 3)]
VERSIONS = (SigningVersion.V1, SigningVersion.V2, SigningVersion.LATEST)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    bls._kept_hash.cache_clear()


def hashed() -> int:
    return bls._kept_hash.cache_info().misses


def test_keys_that_sign_one_message_share_its_hash() -> None:
    for key in KEYS:
        signature = key.sign(b"one", SigningVersion.LATEST)
        BLS.parse_public_key(key.public_key.data).verify(signature, b"one", SigningVersion.LATEST)
    assert hashed() == 1
    KEYS[0].sign(b"two", SigningVersion.LATEST)
    assert hashed() == 2


@pytest.mark.parametrize("message", [b"", b"one", KEYS[0].public_key.data, bytes(bls.KEPT_MESSAGE_BYTES + 1)])
def test_no_suite_signs_what_another_one_hashed(message: bytes) -> None:
    for version in (*VERSIONS, *reversed(VERSIONS)):
        for key in KEYS:
            verifying = BLS.parse_public_key(key.public_key.data)
            verifying.verify(key.sign(message, version), message, version)
            verifying.verify_possession(key.prove_possession())


def test_few_and_small_ones_are_kept() -> None:
    KEYS[0].sign(bytes(bls.KEPT_MESSAGE_BYTES + 1), SigningVersion.LATEST)
    assert hashed() == 0
    assert bls._kept_hash.cache_info().maxsize == bls.KEPT_HASHES
