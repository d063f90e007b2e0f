"""BLS, one suite for both implementations: libblst, which serves, and py_ecc, which can stand in for it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from eth_typing import BLSPubkey, BLSSignature
from py_ecc.bls.g2_primitives import pubkey_to_G1, signature_to_G2, subgroup_check

from enclave_signer.curves import (
    Curve,
    InvalidPrivateKey,
    InvalidPublicKey,
    InvalidSignature,
    VersionNotSupported,
    bls,
    bls_py_ecc,
)
from enclave_signer.curves.known_answers import check_curve
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion

SECRET = bytes.fromhex("2a" * 31 + "07")
MESSAGE = b"\x11 a block"
V1, V2 = SigningVersion.V1, SigningVersion.V2
COMPRESSED, INFINITY, HIGHER_Y = 0x80, 0x40, 0x20
#: The field's modulus: coordinates must be below it.
FIELD = int("1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16)


@pytest.fixture(params=[bls.CURVE, bls_py_ecc.CURVE], ids=["libblst", "py_ecc"])
def implementation(request: pytest.FixtureRequest) -> Curve:
    curve: Curve = request.param
    return curve


def flagged(data: bytes, flags: int) -> bytes:
    """Return a point's bytes with other flags."""
    return bytes([data[0] & 0x1F | flags]) + data[1:]


def smallest_points(size: int) -> tuple[bytes, bytes]:
    """Return an x that is on no curve, and a point on the curve but outside the prime-order group.

    Args:
        size: 48 for G1, 96 for G2.
    """
    off_curve, outside = b"", b""
    for x in range(1, 100):
        data = flagged(x.to_bytes(size, "big"), COMPRESSED)
        try:
            if size == 48:
                inside = subgroup_check(pubkey_to_G1(BLSPubkey(data)))
            else:
                inside = subgroup_check(signature_to_G2(BLSSignature(data)))
        except ValueError:
            off_curve = off_curve or data
            continue
        if not inside:
            outside = outside or data
        if off_curve and outside:
            return off_curve, outside
    raise AssertionError("no such point among the smallest")


G1_OFF_CURVE, G1_OUTSIDE = smallest_points(48)
G2_OFF_CURVE, G2_OUTSIDE = smallest_points(96)


def test_the_known_answers(implementation: Curve) -> None:
    check_curve(KeyType.BLS, implementation)


def test_a_generated_key_signs_in_both_suites_and_proves_possession(implementation: Curve) -> None:
    key = implementation.open(implementation.generate())
    verifying = implementation.parse_public_key(key.public_key.data)
    augmented, possession, proof = key.sign(MESSAGE, V1), key.sign(MESSAGE, V2), key.prove_possession()
    verifying.verify(augmented, MESSAGE, V1)
    verifying.verify(possession, MESSAGE, V2)
    verifying.verify_possession(proof)
    assert len({augmented, possession, proof}) == 3


def test_suites_are_not_mixed(implementation: Curve) -> None:
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    verifying = implementation.parse_public_key(key.public_key.data)
    with pytest.raises(InvalidSignature):
        verifying.verify(key.sign(MESSAGE, V2), MESSAGE, V1)
    with pytest.raises(InvalidSignature):
        verifying.verify(key.prove_possession(), key.public_key.data, V2)
    with pytest.raises(InvalidSignature):
        verifying.verify_possession(key.sign(key.public_key.data, V2))


def test_version_0_does_not_exist(implementation: Curve) -> None:
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    with pytest.raises(VersionNotSupported):
        key.sign(MESSAGE, SigningVersion.V0)
    with pytest.raises(VersionNotSupported):
        implementation.parse_public_key(key.public_key.data).verify(
            Signature(KeyType.BLS, bytes(96)), MESSAGE, SigningVersion.V0
        )


@pytest.mark.parametrize("secret", [bytes(32), bls.ORDER, b"\xff" * 32, SECRET[1:], SECRET + b"\0", b""])
def test_bytes_that_are_no_private_key_are_refused(implementation: Curve, secret: bytes) -> None:
    with pytest.raises(InvalidPrivateKey):
        implementation.open(PrivateKey(KeyType.BLS, secret))


def test_the_smallest_and_largest_keys_are_each_others_negative(implementation: Curve) -> None:
    largest = (int.from_bytes(bls.ORDER, "big") - 1).to_bytes(32, "big")
    one, minus_one = (
        implementation.open(PrivateKey(KeyType.BLS, secret)).public_key.data
        for secret in ((1).to_bytes(32, "big"), largest)
    )
    assert one[1:] == minus_one[1:]
    assert one[0] ^ minus_one[0] == HIGHER_Y


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes(48), id="zeros"),
        pytest.param(b"\xff" * 48, id="ones"),
        pytest.param(flagged(bytes(48), COMPRESSED | INFINITY), id="infinity"),
        pytest.param(flagged(bytes(48), COMPRESSED | INFINITY | HIGHER_Y), id="infinity with a sign"),
        pytest.param(flagged(bytes(47) + b"\x01", COMPRESSED | INFINITY), id="infinity with an x"),
        pytest.param(flagged(FIELD.to_bytes(48, "big"), COMPRESSED), id="x beyond the field"),
        pytest.param(G1_OFF_CURVE, id="off the curve"),
        pytest.param(G1_OUTSIDE, id="outside the group"),
        pytest.param(flagged(G1_OUTSIDE, COMPRESSED | HIGHER_Y), id="outside the group, the other y"),
        pytest.param(bytes(96), id="uncompressed size"),
    ],
)
def test_bytes_that_are_no_public_key_are_refused(implementation: Curve, data: bytes) -> None:
    with pytest.raises(InvalidPublicKey):
        implementation.parse_public_key(data)


def test_a_public_key_without_the_flag_of_compression_is_refused(implementation: Curve) -> None:
    good = implementation.open(PrivateKey(KeyType.BLS, SECRET)).public_key.data
    for flags in (0, HIGHER_Y, INFINITY, INFINITY | HIGHER_Y, (good[0] & 0xE0) | INFINITY):
        with pytest.raises(InvalidPublicKey):
            implementation.parse_public_key(flagged(good, flags))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes(96), id="zeros"),
        pytest.param(b"\xff" * 96, id="ones"),
        pytest.param(flagged(bytes(96), COMPRESSED | INFINITY), id="infinity"),
        pytest.param(flagged(FIELD.to_bytes(48, "big") + bytes(48), COMPRESSED), id="x beyond the field"),
        pytest.param(flagged(bytes(48) + FIELD.to_bytes(48, "big"), COMPRESSED), id="real part beyond the field"),
        pytest.param(G2_OFF_CURVE, id="off the curve"),
        pytest.param(G2_OUTSIDE, id="outside the group"),
        pytest.param(bytes(192), id="uncompressed size"),
    ],
)
def test_bytes_that_are_no_signature_are_refused(implementation: Curve, data: bytes) -> None:
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    verifying = implementation.parse_public_key(key.public_key.data)
    with pytest.raises(InvalidSignature):
        verifying.verify(Signature(KeyType.BLS, data), MESSAGE, V2)
    with pytest.raises(InvalidSignature):
        verifying.verify_possession(Signature(KeyType.BLS, data))


def test_a_negated_signature_is_refused(implementation: Curve) -> None:
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    good = key.sign(MESSAGE, V2).data
    with pytest.raises(InvalidSignature):
        implementation.parse_public_key(key.public_key.data).verify(
            Signature(KeyType.BLS, flagged(good, (good[0] & 0xE0) ^ HIGHER_Y)), MESSAGE, V2
        )


def test_the_proof_of_another_key_is_refused(implementation: Curve) -> None:
    proof = implementation.open(PrivateKey(KeyType.BLS, b"\x11" * 32)).prove_possession()
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    with pytest.raises(InvalidSignature):
        implementation.parse_public_key(key.public_key.data).verify_possession(proof)


def test_a_proof_for_another_key_is_for_that_one_only(implementation: Curve) -> None:
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    other = implementation.open(PrivateKey(KeyType.BLS, b"\x11" * 32)).public_key
    verifying = implementation.parse_public_key(key.public_key.data)
    proof = key.prove_possession(other)
    verifying.verify_possession(proof, other)
    with pytest.raises(InvalidSignature):
        verifying.verify_possession(proof)
    with pytest.raises(InvalidSignature):
        verifying.verify_possession(key.prove_possession(), other)
    with pytest.raises(InvalidSignature):
        implementation.parse_public_key(other.data).verify_possession(proof)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(PublicKey(KeyType.ED25519, bytes(32)), id="of another curve"),
        pytest.param(PublicKey(KeyType.BLS, bytes(48)), id="zeros"),
        pytest.param(PublicKey(KeyType.BLS, flagged(bytes(48), COMPRESSED | INFINITY)), id="infinity"),
        pytest.param(PublicKey(KeyType.BLS, G1_OUTSIDE), id="outside the group"),
        pytest.param(PublicKey(KeyType.BLS, bytes(47)), id="too short"),
    ],
)
def test_no_proof_for_what_is_no_key(implementation: Curve, other: PublicKey) -> None:
    key = implementation.open(PrivateKey(KeyType.BLS, SECRET))
    with pytest.raises(InvalidPublicKey):
        key.prove_possession(other)


def test_an_opened_key_prints_nothing_of_its_secret(implementation: Curve) -> None:
    assert repr(implementation.open(PrivateKey(KeyType.BLS, SECRET))) == "<opened Bls key>"


def test_both_give_the_same_bytes() -> None:
    fast, slow = (curve.open(PrivateKey(KeyType.BLS, SECRET)) for curve in (bls.CURVE, bls_py_ecc.CURVE))
    assert fast.public_key == slow.public_key
    assert fast.prove_possession() == slow.prove_possession()
    other = bls.CURVE.open(PrivateKey(KeyType.BLS, b"\x11" * 32)).public_key
    assert fast.prove_possession(other) == slow.prove_possession(other)
    for message in (b"", MESSAGE, bytes(32 * 1024)):
        assert fast.sign(message, V1) == slow.sign(message, V1)


def test_threads_sign_with_one_key_at_once() -> None:
    key = bls.CURVE.open(PrivateKey(KeyType.BLS, SECRET))
    messages = [bytes([number]) * (1 + 61 * number) for number in range(8)]
    expected = [(key.sign(message, V1), key.sign(message, V2)) for message in messages]
    threads = 16
    together = Barrier(threads)

    def work(shift: int) -> bool:
        together.wait()
        turns = [(shift + turn) % len(messages) for turn in range(2 * len(messages))]
        return all((key.sign(messages[turn], V1), key.sign(messages[turn], V2)) == expected[turn] for turn in turns)

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(work, range(threads)))


def test_threads_verify_with_one_key_at_once() -> None:
    key = bls.CURVE.open(PrivateKey(KeyType.BLS, SECRET))
    verifying = bls.CURVE.parse_public_key(key.public_key.data)
    signature = key.sign(MESSAGE, V2)

    def work(number: int) -> bool:
        message = MESSAGE if number % 2 else bytes([number])
        try:
            verifying.verify(signature, message, V2)
        except InvalidSignature:
            return message != MESSAGE
        return message == MESSAGE

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
