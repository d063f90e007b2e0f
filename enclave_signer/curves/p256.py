"""Deterministic ECDSA (RFC 6979, HMAC-SHA256) on P-256 over BLAKE2b-256, by OpenSSL.

- s stays as it comes, high or low, and both are accepted: so does the reference.

Source: tee-signer 4f91388, recorded: 31 of 64 signatures had the higher s.
"""

from cryptography.exceptions import InvalidSignature as OpenSSLInvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from enclave_signer.curves.base import (
    SCALAR_BYTES,
    Curve,
    InvalidPublicKey,
    KnownAnswer,
    check_public_key_size,
    random_scalar,
    scalar_bytes,
)
from enclave_signer.curves.der import from_der, to_der
from enclave_signer.curves.digest import DigestSigningKey, DigestVerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, SigningVersion

#: Source: SEC 2, version 2.0, section 2.4.2.
ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")

_CURVE = ec.SECP256R1()
# SHA-256 here names the digest's size and the hash inside RFC 6979; making this object takes 2.5 us.
_ECDSA = ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True)


class P256SigningKey(DigestSigningKey):
    """An opened P-256 key."""

    __slots__ = ("_key",)

    def __init__(self, scalar: bytes) -> None:
        self._key = ec.derive_private_key(int.from_bytes(scalar, "big"), _CURVE)
        super().__init__(PublicKey(KeyType.P256, _compressed(self._key.public_key().public_numbers())))

    def _sign(self, digest: bytes) -> bytes:
        return from_der(self._key.sign(digest, _ECDSA))


class P256VerifyingKey(DigestVerifyingKey):
    """A parsed P-256 public key."""

    __slots__ = ("_key",)

    def __init__(self, public_key: PublicKey, key: ec.EllipticCurvePublicKey) -> None:
        super().__init__(public_key)
        self._key = key

    def _verifies(self, signature: bytes, digest: bytes) -> bool:
        try:
            self._key.verify(to_der(signature), digest, _ECDSA)
        except OpenSSLInvalidSignature:
            return False
        return True


#: A public test key. Source: tee-signer 4f91388, recorded.
_KNOWN_ANSWER = KnownAnswer(
    private_key=bytes.fromhex("4365810d543d305a3cd0e07aabc5c2a0cfab4b67642c7e99a99baaf1f6e459d9"),
    public_key=bytes.fromhex("02a547d28523f2e208c916f7745d16475489d1c164edff4f07f12bd7738a7a2ced"),
    signatures=(
        (
            SigningVersion.LATEST,
            bytes.fromhex(
                "6417046233d0386ff0bd98576a71848c2e3431dde4bf68237082569d42435ca97a72b6d2b8e92f16cc34c7072a236c32"
                "d62e5af97b1c5dad819d4d8a33e7e9cd"
            ),
        ),
    ),
)


class P256:
    """The curve."""

    key_type = KeyType.P256
    known_answer = _KNOWN_ANSWER

    def generate(self) -> PrivateKey:
        """Return a new private key."""
        return PrivateKey(KeyType.P256, random_scalar(ORDER))

    def open(self, private_key: PrivateKey) -> P256SigningKey:
        """Return the key, ready to sign.

        Raises:
            InvalidPrivateKey: Another curve's key, not 32 bytes, zero, or not below the group order.
        """
        return P256SigningKey(scalar_bytes(private_key, KeyType.P256, ORDER))

    def parse_public_key(self, data: bytes) -> P256VerifyingKey:
        """Return the key, ready to verify.

        Raises:
            InvalidPublicKey: Not 33 bytes, or no compressed point of the curve.
        """
        check_public_key_size(data, KeyType.P256)
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, data)
        except ValueError:
            raise InvalidPublicKey("not a public key of NistP256: no compressed point of the curve") from None
        return P256VerifyingKey(PublicKey(KeyType.P256, data), key)


def _compressed(point: ec.EllipticCurvePublicNumbers) -> bytes:
    """Return a point as its x behind the sign of its y. Written here: `serialization` takes long to import."""
    return bytes((0x02 | point.y & 1,)) + point.x.to_bytes(SCALAR_BYTES, "big")


CURVE: Curve = P256()
