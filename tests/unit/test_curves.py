"""What every curve accepts and refuses, and what it never gives away."""

import traceback
from collections.abc import Iterator

import coincurve
import pytest
from ecdsa import NIST256p, SECP256k1
from nacl.bindings import crypto_core_ed25519_add
from py_ecc.optimized_bls12_381.optimized_curve import curve_order

from enclave_signer.curves import (
    InvalidPrivateKey,
    InvalidPublicKey,
    InvalidSignature,
    ProofNotSupported,
    VersionNotSupported,
    curve,
)
from enclave_signer.protocol.messages import (
    KeyType,
    PrivateKey,
    Signature,
    SigningVersion,
)

ORDERS: dict[KeyType, int] = {
    KeyType.SECP256K1: SECP256k1.order,
    KeyType.P256: NIST256p.order,
    KeyType.BLS: curve_order,
}
ECDSA = [KeyType.SECP256K1, KeyType.P256]
DIGEST_CURVES = [KeyType.ED25519, *ECDSA]
#: Curves proper: any bytes of the right size are a public key of ML-DSA-44.
POINTS = [*DIGEST_CURVES, KeyType.BLS]
SECRET = bytes.fromhex("2a" * 31 + "07")
MESSAGE = b"\x03 a message"
LATEST = SigningVersion.LATEST


def sign(key_type: KeyType, secret: bytes = SECRET, message: bytes = MESSAGE) -> Signature:
    return curve(key_type).open(PrivateKey(key_type, secret)).sign(message, LATEST)


def public_bytes(key_type: KeyType, secret: bytes = SECRET) -> bytes:
    return curve(key_type).open(PrivateKey(key_type, secret)).public_key.data


def verify(signature: Signature, message: bytes = MESSAGE, secret: bytes = SECRET) -> None:
    key_type = signature.key_type
    curve(key_type).parse_public_key(public_bytes(key_type, secret)).verify(signature, message, LATEST)


def bit_flips(data: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield the data with one bit changed, at every `step`-th bit."""
    for bit in range(0, len(data) * 8, step):
        yield bytes(byte ^ (0x80 >> bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(data))


# Opening


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_generated_key_opens_signs_and_verifies(key_type: KeyType) -> None:
    the_curve = curve(key_type)
    first, second = the_curve.generate(), the_curve.generate()
    assert first.data != second.data
    key = the_curve.open(first)
    assert key.public_key.key_type is key_type
    assert len(key.public_key.data) == key_type.facts.public_key_bytes
    signature = key.sign(MESSAGE, LATEST)
    assert signature.key_type is key_type
    assert len(signature.data) == key_type.facts.signature_bytes
    verifying = the_curve.parse_public_key(key.public_key.data)
    assert verifying.public_key == key.public_key
    verifying.verify(signature, MESSAGE, LATEST)
    verifying.verify(signature, MESSAGE, LATEST)


@pytest.mark.parametrize("key_type", list(ORDERS))
def test_scalars_are_drawn_again_until_one_fits(key_type: KeyType, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ORDERS[key_type]
    draws = [number.to_bytes(32, "big") for number in (0, order, 2**256 - 1, order - 1)]
    monkeypatch.setattr("secrets.token_bytes", lambda size: draws.pop(0)[:size])
    assert curve(key_type).generate().data == (order - 1).to_bytes(32, "big")
    assert draws == []


@pytest.mark.parametrize("key_type", list(ORDERS))
def test_scalars_from_one_to_the_order_open(key_type: KeyType) -> None:
    for number in (1, 2, ORDERS[key_type] - 1):
        secret = number.to_bytes(32, "big")
        verify(sign(key_type, secret), secret=secret)


@pytest.mark.parametrize("key_type", list(ORDERS))
def test_scalars_outside_the_group_are_refused(key_type: KeyType) -> None:
    order = ORDERS[key_type]
    for number in (0, order, order + 1, 2**256 - 1):
        with pytest.raises(InvalidPrivateKey, match="above zero and below the group order"):
            curve(key_type).open(PrivateKey(key_type, number.to_bytes(32, "big")))


@pytest.mark.parametrize("seed", [bytes(32), b"\xff" * 32])
def test_any_32_bytes_are_an_ed25519_seed(seed: bytes) -> None:
    verify(sign(KeyType.ED25519, seed), secret=seed)


@pytest.mark.parametrize("key_type", list(KeyType))
@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_private_keys_of_another_size_are_refused(key_type: KeyType, size: int) -> None:
    with pytest.raises(InvalidPrivateKey, match=rf"has 32 bytes, not {size}$"):
        curve(key_type).open(PrivateKey(key_type, b"\x01" * size))


@pytest.mark.parametrize("key_type", list(KeyType))
def test_private_keys_of_another_curve_are_refused(key_type: KeyType) -> None:
    for other in set(KeyType) - {key_type}:
        with pytest.raises(InvalidPrivateKey, match=rf"of {other} was given where {key_type} is meant"):
            curve(key_type).open(PrivateKey(other, SECRET))


@pytest.mark.parametrize("key_type", list(KeyType))
def test_an_opened_key_prints_nothing_of_its_secret(key_type: KeyType) -> None:
    key = curve(key_type).open(PrivateKey(key_type, SECRET))
    assert repr(key) == str(key) == f"<opened {key_type} key>"
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("key_type", list(KeyType))
def test_refusals_hold_nothing_of_a_secret(key_type: KeyType) -> None:
    refused = [b"\xfe" * 31, b"\xfe" * 33]
    if key_type in ORDERS:
        refused.append((ORDERS[key_type] + 2**20).to_bytes(32, "big"))
    for secret in refused:
        with pytest.raises(InvalidPrivateKey) as caught:
            curve(key_type).open(PrivateKey(key_type, secret))
        text = "".join(traceback.format_exception(caught.value))
        for form in (secret.hex(), str(int.from_bytes(secret, "big")), repr(secret)[2:-1]):
            assert form not in text


# Public keys


@pytest.mark.parametrize("key_type", list(KeyType))
def test_public_keys_of_another_size_are_refused(key_type: KeyType) -> None:
    good = public_bytes(key_type)
    for data in (b"", good[:-1], good + b"\0", good * 2):
        with pytest.raises(InvalidPublicKey, match=rf"has {len(good)} bytes, compressed, not {len(data)}$"):
            curve(key_type).parse_public_key(data)


@pytest.mark.parametrize("key_type", POINTS)
def test_bytes_that_are_no_point_are_refused(key_type: KeyType) -> None:
    size = key_type.facts.public_key_bytes
    for data in (bytes(size), b"\xff" * size, b"\x02" + b"\xff" * (size - 1)):
        with pytest.raises(InvalidPublicKey, match=f"^not a public key of {key_type}"):
            curve(key_type).parse_public_key(data)


@pytest.mark.parametrize("key_type", ECDSA)
def test_uncompressed_and_hybrid_ecdsa_keys_are_refused(key_type: KeyType) -> None:
    good = public_bytes(key_type)
    with pytest.raises(InvalidPublicKey, match="compressed, not 65"):
        curve(key_type).parse_public_key(coincurve.PublicKey(public_bytes(KeyType.SECP256K1)).format(compressed=False))
    for head in set(range(256)) - {2, 3}:
        with pytest.raises(InvalidPublicKey, match="no compressed point"):
            curve(key_type).parse_public_key(bytes([head]) + good[1:])


@pytest.mark.parametrize(("key_type", "x"), [(KeyType.SECP256K1, 5), (KeyType.P256, 1)])
def test_ecdsa_keys_off_the_curve_are_refused(key_type: KeyType, x: int) -> None:
    for head in (b"\x02", b"\x03"):
        with pytest.raises(InvalidPublicKey, match="no compressed point"):
            curve(key_type).parse_public_key(head + x.to_bytes(32, "big"))


def test_ed25519_keys_outside_the_prime_order_group_are_refused() -> None:
    order_two = (2**255 - 20).to_bytes(32, "little")  # y = -1
    identity = (1).to_bytes(32, "little")
    not_canonical = (2**255 - 19 + 1).to_bytes(32, "little")
    off_curve = (2).to_bytes(32, "little")
    mixed = crypto_core_ed25519_add(public_bytes(KeyType.ED25519), order_two)
    for data in (order_two, identity, not_canonical, off_curve, mixed):
        with pytest.raises(InvalidPublicKey, match="no canonical point"):
            curve(KeyType.ED25519).parse_public_key(data)


# Signatures


@pytest.mark.parametrize("key_type", list(KeyType))
def test_signatures_of_another_size_are_refused(key_type: KeyType) -> None:
    good = sign(key_type)
    for data in (b"", good.data[:-1], good.data + b"\0"):
        with pytest.raises(InvalidSignature, match=rf"has {len(good.data)} bytes, not {len(data)}$"):
            verify(Signature(key_type, data))


@pytest.mark.parametrize("key_type", list(KeyType))
def test_signatures_of_another_curve_are_refused(key_type: KeyType) -> None:
    key = curve(key_type).parse_public_key(public_bytes(key_type))
    for other in set(KeyType) - {key_type}:
        with pytest.raises(InvalidSignature, match=rf"of {other} was given to a key of {key_type}"):
            key.verify(Signature(other, sign(key_type).data), MESSAGE, LATEST)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_signatures_with_a_flipped_bit_are_refused(key_type: KeyType) -> None:
    for data in bit_flips(sign(key_type).data, step={KeyType.BLS: 7, KeyType.ML_DSA_44: 97}.get(key_type, 1)):
        with pytest.raises(InvalidSignature, match="does not belong to this key and message"):
            verify(Signature(key_type, data))


@pytest.mark.parametrize("key_type", list(KeyType))
def test_signatures_of_other_messages_and_keys_are_refused(key_type: KeyType) -> None:
    signature = sign(key_type)
    for message in (b"", MESSAGE[:-1], MESSAGE + b"\0", *bit_flips(MESSAGE, step=9)):
        with pytest.raises(InvalidSignature):
            verify(signature, message)
    with pytest.raises(InvalidSignature):
        verify(signature, secret=b"\x11" * 32)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_signatures_that_are_no_numbers_or_points_are_refused(key_type: KeyType) -> None:
    size = key_type.facts.signature_bytes
    for data in (bytes(size), b"\xff" * size, b"\xff" * (size // 2) + bytes(size // 2)):
        with pytest.raises(InvalidSignature):
            verify(Signature(key_type, data))


@pytest.mark.parametrize("key_type", ECDSA)
def test_ecdsa_scalars_outside_the_group_are_refused(key_type: KeyType) -> None:
    good, order = sign(key_type).data, ORDERS[key_type].to_bytes(32, "big")
    for data in (bytes(32) + good[32:], good[:32] + bytes(32), order + good[32:], good[:32] + order):
        with pytest.raises(InvalidSignature):
            verify(Signature(key_type, data))


def other_s(signature: Signature) -> Signature:
    """Return the second signature that plain ECDSA accepts wherever it accepts the first."""
    s = ORDERS[signature.key_type] - int.from_bytes(signature.data[32:], "big")
    return Signature(signature.key_type, signature.data[:32] + s.to_bytes(32, "big"))


def test_secp256k1_gives_low_s_and_refuses_high_s() -> None:
    for number in range(16):
        message = bytes([number])
        signature = sign(KeyType.SECP256K1, message=message)
        assert 0 < int.from_bytes(signature.data[32:], "big") <= SECP256k1.order // 2
        verify(signature, message)
        with pytest.raises(InvalidSignature):
            verify(other_s(signature), message)


def test_p256_gives_s_as_it_comes_and_takes_either() -> None:
    high = 0
    for number in range(16):
        message = bytes([number])
        signature = sign(KeyType.P256, message=message)
        high += int.from_bytes(signature.data[32:], "big") > NIST256p.order // 2
        verify(signature, message)
        verify(other_s(signature), message)
    assert 0 < high < 16


# Versions and proofs


@pytest.mark.parametrize("key_type", DIGEST_CURVES)
def test_every_version_signs_alike_except_for_bls(key_type: KeyType) -> None:
    key = curve(key_type).open(PrivateKey(key_type, SECRET))
    (signature,) = {key.sign(MESSAGE, version) for version in SigningVersion}
    verifying = curve(key_type).parse_public_key(key.public_key.data)
    for version in SigningVersion:
        verifying.verify(signature, MESSAGE, version)


def test_bls_has_no_version_0() -> None:
    key = curve(KeyType.BLS).open(PrivateKey(KeyType.BLS, SECRET))
    with pytest.raises(VersionNotSupported, match="no signing version 0: use 1 or 2"):
        key.sign(MESSAGE, SigningVersion.V0)
    with pytest.raises(VersionNotSupported, match="no signing version 0: use 1 or 2"):
        curve(KeyType.BLS).parse_public_key(key.public_key.data).verify(
            key.sign(MESSAGE, LATEST), MESSAGE, SigningVersion.V0
        )


@pytest.mark.parametrize("version", [SigningVersion.V0, SigningVersion.V1, SigningVersion.V2])
def test_ml_dsa_44_has_only_the_latest_version(version: SigningVersion) -> None:
    key = curve(KeyType.ML_DSA_44).open(PrivateKey(KeyType.ML_DSA_44, SECRET))
    with pytest.raises(VersionNotSupported, match=f"^MlDsa44 has no signing version {int(version)}: use the latest"):
        key.sign(MESSAGE, version)
    with pytest.raises(VersionNotSupported, match=f"^MlDsa44 has no signing version {int(version)}: use the latest"):
        verify_as(key.sign(MESSAGE, LATEST), version)


def verify_as(signature: Signature, version: SigningVersion) -> None:
    key_type = signature.key_type
    curve(key_type).parse_public_key(public_bytes(key_type)).verify(signature, MESSAGE, version)


@pytest.mark.parametrize("key_type", [*DIGEST_CURVES, KeyType.ML_DSA_44])
def test_only_bls_proves_possession(key_type: KeyType) -> None:
    key = curve(key_type).open(PrivateKey(key_type, SECRET))
    with pytest.raises(ProofNotSupported, match=rf"not supported for {key_type}: only BLS"):
        key.prove_possession()
    with pytest.raises(ProofNotSupported, match=rf"not supported for {key_type}: only BLS"):
        curve(key_type).parse_public_key(key.public_key.data).verify_possession(key.sign(MESSAGE, LATEST))


def test_these_are_slow_and_those_are_not() -> None:
    assert not [key_type for key_type in (KeyType.ED25519, KeyType.SECP256K1, KeyType.P256) if key_type.facts.slow]
    assert all(key_type.facts.slow for key_type in (KeyType.BLS, KeyType.ML_DSA_44))
    assert all(curve(key_type).key_type is key_type for key_type in KeyType)
