"""Deterministic ECDSA (RFC 6979, HMAC-SHA256) on secp256k1 over BLAKE2b-256, by libsecp256k1.

- Signatures have the lower of the two values of s; one with the higher is refused. Both the library's own rules.
"""

import coincurve

from enclave_signer.curves.base import (
    Curve,
    InvalidPublicKey,
    KnownAnswer,
    check_public_key_size,
    random_scalar,
    scalar_bytes,
)
from enclave_signer.curves.der import to_der
from enclave_signer.curves.digest import DigestSigningKey, DigestVerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, SigningVersion

#: Source: SEC 2, version 2.0, section 2.4.1.
ORDER = bytes.fromhex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")

_SIGNATURE_BYTES = KeyType.SECP256K1.facts.signature_bytes


class Secp256k1SigningKey(DigestSigningKey):
    """An opened secp256k1 key."""

    __slots__ = ("_key",)

    def __init__(self, scalar: bytes) -> None:
        self._key = coincurve.PrivateKey(scalar)
        super().__init__(PublicKey(KeyType.SECP256K1, self._key.public_key.format(compressed=True)))

    def _sign(self, digest: bytes) -> bytes:
        # The recoverable form is r, s and one byte more: no DER to take apart.
        return self._key.sign_recoverable(digest, hasher=None)[:_SIGNATURE_BYTES]


class Secp256k1VerifyingKey(DigestVerifyingKey):
    """A parsed secp256k1 public key."""

    __slots__ = ("_key",)

    def __init__(self, public_key: PublicKey, key: coincurve.PublicKey) -> None:
        super().__init__(public_key)
        self._key = key

    def _verifies(self, signature: bytes, digest: bytes) -> bool:
        return self._key.verify(to_der(signature), digest, hasher=None)


#: A public test key. Source: tee-signer 4f91388, recorded.
_KNOWN_ANSWER = KnownAnswer(
    private_key=bytes.fromhex("0d978d7713a2ec96c4a5ab7b57d2d055ac33a85cf9ed05fe14bf8cc81b6be1a1"),
    public_key=bytes.fromhex("03dc80d058f0c4cd090a93363b39f65d659d8fa0c9636dbdec87554334f91f3d57"),
    signatures=(
        (
            SigningVersion.LATEST,
            bytes.fromhex(
                "b209ddbfb5b666880fc4b776e99d75b03f0518634acec321a684920b0fee75c348cd9636dba0f126caa5ed8669ab5daa"
                "e0f873fade4be71b447f2968ee756e8c"
            ),
        ),
    ),
)


class Secp256k1:
    """The curve."""

    key_type = KeyType.SECP256K1
    known_answer = _KNOWN_ANSWER

    def generate(self) -> PrivateKey:
        """Return a new private key."""
        return PrivateKey(KeyType.SECP256K1, random_scalar(ORDER))

    def open(self, private_key: PrivateKey) -> Secp256k1SigningKey:
        """Return the key, ready to sign.

        Raises:
            InvalidPrivateKey: Another curve's key, not 32 bytes, zero, or not below the group order.
        """
        return Secp256k1SigningKey(scalar_bytes(private_key, KeyType.SECP256K1, ORDER))

    def parse_public_key(self, data: bytes) -> Secp256k1VerifyingKey:
        """Return the key, ready to verify.

        Raises:
            InvalidPublicKey: Not 33 bytes, or no compressed point of the curve.
        """
        check_public_key_size(data, KeyType.SECP256K1)
        try:
            key = coincurve.PublicKey(data)
        except ValueError:
            raise InvalidPublicKey("not a public key of Secp256k1: no compressed point of the curve") from None
        return Secp256k1VerifyingKey(PublicKey(KeyType.SECP256K1, data), key)


CURVE: Curve = Secp256k1()
