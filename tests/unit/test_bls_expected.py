"""A BLS signature that is verified in two halves: it passes, or not, as one that is verified at once."""

import random

import pytest

from enclave_signer.curves import (
    Expected,
    InvalidSignature,
    SignatureCheck,
    curve,
    expected_signature,
)
from enclave_signer.protocol.messages import KeyType, PrivateKey, Signature, SigningVersion

BLS = curve(KeyType.BLS)
KEY, OTHER = [BLS.open(PrivateKey(KeyType.BLS, number.to_bytes(32))) for number in (1, 2)]
VERIFYING = BLS.parse_public_key(KEY.public_key.data)
MESSAGE = b"\x13" + bytes(42)
LATEST = SigningVersion.LATEST
RIGHT = KEY.sign(MESSAGE, LATEST)
VERSIONS = (LATEST, SigningVersion.V1, SigningVersion.V2)
WRONG = {
    "another message": KEY.sign(b"another", LATEST),
    "another key": OTHER.sign(MESSAGE, LATEST),
    "another suite": KEY.sign(MESSAGE, SigningVersion.V1),
    "the other point with this x": Signature(KeyType.BLS, bytes([RIGHT.data[0] ^ 0x20]) + RIGHT.data[1:]),
    "infinity": Signature(KeyType.BLS, b"\xc0" + bytes(95)),
    # Compressed: on the curve, though not in the group; found by trial.
    "outside of the group": Signature(KeyType.BLS, b"\x80" + bytes(94) + b"\x02"),
    "cut short": Signature(KeyType.BLS, RIGHT.data[:-1]),
    "another curve": Signature(KeyType.ED25519, bytes(64)),
}


def expected(version: SigningVersion = LATEST) -> Expected:
    found = expected_signature(VERIFYING, MESSAGE, version)
    assert found is not None
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("prepared", [True, False])
def test_the_right_one_passes(version: SigningVersion, *, prepared: bool) -> None:
    half = expected(version)
    if prepared:
        half.prepare()
    for _ in range(2):
        half.verify(KEY.sign(MESSAGE, version))


@pytest.mark.parametrize("signature", WRONG.values(), ids=WRONG)
def test_a_wrong_one_does_not_and_spoils_nothing(signature: Signature) -> None:
    half = expected()
    half.prepare()
    with pytest.raises(InvalidSignature):
        half.verify(signature)
    half.verify(RIGHT)


def test_any_bit_that_is_wrong_fails() -> None:
    half, chosen = expected(), random.Random(1)
    half.prepare()
    for _ in range(40):
        data = (int.from_bytes(RIGHT.data) ^ 1 << chosen.randrange(96 * 8)).to_bytes(96)
        with pytest.raises(InvalidSignature):
            half.verify(Signature(KeyType.BLS, data))


def test_of_another_curve_no_part_can_be_done_before() -> None:
    ed25519 = curve(KeyType.ED25519)
    key = ed25519.parse_public_key(ed25519.open(ed25519.generate()).public_key.data)
    assert expected_signature(key, MESSAGE, LATEST) is None


def test_a_check_uses_it() -> None:
    half = expected()
    half.prepare()
    check = SignatureCheck(VERIFYING, RIGHT, MESSAGE, LATEST, half)
    check.verify()
    with pytest.raises(InvalidSignature):
        check._replace(signature=WRONG["another message"]).verify()
