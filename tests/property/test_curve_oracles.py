"""Our signatures equal those of an independent library, for any key and message.

The oracle is never the library that signs: cryptography for Ed25519 and secp256k1, ecdsa for P-256, py_ecc for BLS,
dilithium-py for ML-DSA-44, whose signatures are hedged, so each verifies those of the other.
"""

from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dilithium_py.ml_dsa import ML_DSA_44
from ecdsa import NIST256p, SECP256k1, SigningKey, VerifyingKey
from ecdsa.errors import MalformedPointError
from ecdsa.util import sigencode_string
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.encoding import RawEncoder
from nacl.hash import blake2b
from py_ecc.bls.ciphersuites import G2MessageAugmentation, G2ProofOfPossession
from py_ecc.optimized_bls12_381.optimized_curve import curve_order

from enclave_signer.curves import InvalidPublicKey, InvalidSignature, curve
from enclave_signer.curves.der import from_der, to_der
from enclave_signer.protocol.messages import (
    KeyType,
    PrivateKey,
    PublicKey,
    Signature,
    SigningVersion,
)

SHA256_DIGEST = ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True)
V1, LATEST = SigningVersion.V1, SigningVersion.LATEST

unhurried = settings(deadline=None)  # the first example may load a library, and machines may be busy
a_few = settings(deadline=None, max_examples=3)  # py_ecc takes 0.15 s a signature

messages = st.binary(max_size=600)


def scalars(order: int) -> st.SearchStrategy[bytes]:
    return st.integers(1, order - 1).map(lambda number: number.to_bytes(32, "big"))


def digest(message: bytes) -> bytes:
    """Return BLAKE2b-256, by libsodium: ours comes from hashlib."""
    return bytes(blake2b(message, digest_size=32, encoder=RawEncoder))


def sign(key_type: KeyType, secret: bytes, message: bytes) -> tuple[bytes, bytes]:
    """Return public key and signature, which our own verification accepts."""
    key = curve(key_type).open(PrivateKey(key_type, secret))
    signature = key.sign(message, LATEST)
    curve(key_type).parse_public_key(key.public_key.data).verify(signature, message, LATEST)
    return key.public_key.data, signature.data


@unhurried
@given(seed=st.binary(min_size=32, max_size=32), message=messages)
def test_ed25519_equals_openssl(seed: bytes, message: bytes) -> None:
    public_key, signature = sign(KeyType.ED25519, seed, message)
    oracle = Ed25519PrivateKey.from_private_bytes(seed)
    assert public_key == oracle.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert signature == oracle.sign(digest(message))


@unhurried
@given(secret=scalars(SECP256k1.order), message=messages)
def test_secp256k1_equals_openssl_with_low_s(secret: bytes, message: bytes) -> None:
    public_key, signature = sign(KeyType.SECP256K1, secret, message)
    oracle = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())
    assert public_key == oracle.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    r, s = decode_dss_signature(oracle.sign(digest(message), SHA256_DIGEST))
    s = min(s, SECP256k1.order - s)
    assert signature == r.to_bytes(32, "big") + s.to_bytes(32, "big")


@settings(max_examples=60, deadline=None)
@given(secret=scalars(NIST256p.order), message=messages)
def test_p256_equals_rfc_6979(secret: bytes, message: bytes) -> None:
    public_key, signature = sign(KeyType.P256, secret, message)
    oracle = SigningKey.from_string(secret, curve=NIST256p)
    assert public_key == oracle.verifying_key.to_string("compressed")
    assert signature == oracle.sign_digest_deterministic(digest(message), hashfunc=sha256, sigencode=sigencode_string)


@a_few
@given(secret=scalars(curve_order), message=messages)
def test_bls_message_augmentation_equals_py_ecc(secret: bytes, message: bytes) -> None:
    key = curve(KeyType.BLS).open(PrivateKey(KeyType.BLS, secret))
    scalar = int.from_bytes(secret, "big")
    assert key.public_key.data == G2MessageAugmentation.SkToPk(scalar)
    assert key.sign(message, V1).data == G2MessageAugmentation.Sign(scalar, message)


@a_few
@given(secret=scalars(curve_order), message=messages)
def test_bls_by_possession_equals_py_ecc(secret: bytes, message: bytes) -> None:
    key = curve(KeyType.BLS).open(PrivateKey(KeyType.BLS, secret))
    expected = G2ProofOfPossession.Sign(int.from_bytes(secret, "big"), message)
    assert key.sign(message, SigningVersion.V2).data == key.sign(message, LATEST).data == expected


@a_few
@given(secret=scalars(curve_order))
def test_bls_proofs_equal_py_ecc(secret: bytes) -> None:
    key = curve(KeyType.BLS).open(PrivateKey(KeyType.BLS, secret))
    assert key.prove_possession().data == G2ProofOfPossession.PopProve(int.from_bytes(secret, "big"))


@settings(max_examples=40, deadline=None)
@given(secret=scalars(curve_order), message=messages)
def test_bls_accepts_its_own(secret: bytes, message: bytes) -> None:
    key = curve(KeyType.BLS).open(PrivateKey(KeyType.BLS, secret))
    verifying = curve(KeyType.BLS).parse_public_key(key.public_key.data)
    for version in (V1, SigningVersion.V2, LATEST):
        verifying.verify(key.sign(message, version), message, version)
    verifying.verify_possession(key.prove_possession())


@unhurried
@given(x=st.binary(min_size=32, max_size=32), head=st.sampled_from([b"\x02", b"\x03"]), data=st.data())
def test_ecdsa_points_are_those_of_another_library(x: bytes, head: bytes, data: st.DataObject) -> None:
    key_type, oracle = data.draw(st.sampled_from([(KeyType.SECP256K1, SECP256k1), (KeyType.P256, NIST256p)]))
    try:
        VerifyingKey.from_string(head + x, curve=oracle, valid_encodings=["compressed"])
    except MalformedPointError:
        with pytest.raises(InvalidPublicKey):
            curve(key_type).parse_public_key(head + x)
    else:
        assert curve(key_type).parse_public_key(head + x).public_key == PublicKey(key_type, head + x)


@settings(deadline=None, max_examples=10)
@given(seed=st.binary(min_size=32, max_size=32), message=messages)
def test_ml_dsa_44_and_dilithium_py_verify_each_other(seed: bytes, message: bytes) -> None:
    public_key, signature = sign(KeyType.ML_DSA_44, seed, message)
    theirs, expanded = ML_DSA_44.key_derive(seed)
    assert public_key == theirs
    assert ML_DSA_44.verify(public_key, digest(message), signature, ctx=b"")
    assert not ML_DSA_44.verify(public_key, message, signature, ctx=b"")
    assert not ML_DSA_44.verify(public_key, digest(message), signature, ctx=b"tezos")
    key = curve(KeyType.ML_DSA_44).parse_public_key(public_key)
    for deterministic in (True, False):
        made = ML_DSA_44.sign(expanded, digest(message), ctx=b"", deterministic=deterministic)
        key.verify(Signature(KeyType.ML_DSA_44, made), message, LATEST)
    other = ML_DSA_44.sign(expanded, digest(message), ctx=b"tezos", deterministic=True)
    with pytest.raises(InvalidSignature):
        key.verify(Signature(KeyType.ML_DSA_44, other), message, LATEST)


@unhurried
@given(key_type=st.sampled_from(list(KeyType)), data=st.data())
def test_any_bytes_are_a_public_key_or_refused(key_type: KeyType, data: st.DataObject) -> None:
    size = key_type.facts.public_key_bytes
    candidate = data.draw(st.binary(max_size=100) | st.binary(min_size=size, max_size=size))
    try:
        key = curve(key_type).parse_public_key(candidate)
    except InvalidPublicKey:
        return
    assert key.public_key.data == candidate


@unhurried
@given(key_type=st.sampled_from(list(KeyType)), data=st.data())
def test_any_bytes_as_a_signature_are_refused(key_type: KeyType, data: st.DataObject) -> None:
    size = key_type.facts.signature_bytes
    candidate = data.draw(st.binary(max_size=100) | st.binary(min_size=size, max_size=size))
    public_key = curve(key_type).open(PrivateKey(key_type, b"\x01" * 32)).public_key
    with pytest.raises(InvalidSignature):
        curve(key_type).parse_public_key(public_key.data).verify(Signature(key_type, candidate), b"message", LATEST)


@unhurried
@given(r=st.integers(0, 2**256 - 1), s=st.integers(0, 2**256 - 1))
def test_der_equals_openssl(r: int, s: int) -> None:
    raw, der = r.to_bytes(32, "big") + s.to_bytes(32, "big"), encode_dss_signature(r, s)
    assert to_der(raw) == der
    assert from_der(der) == raw


@unhurried
@given(r=st.integers(0, 255), s=st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 2**255, 2**248]))
def test_der_of_numbers_at_the_edge_of_a_byte(r: int, s: int) -> None:
    raw, der = r.to_bytes(32, "big") + s.to_bytes(32, "big"), encode_dss_signature(r, s)
    assert to_der(raw) == der
    assert from_der(der) == raw
