"""ML-DSA-44 (FIPS 204) over BLAKE2b-256 with an empty context, by OpenSSL.

- A private key is the seed of 32 bytes, from which FIPS 204 makes all else.
- Signatures are hedged: 32 random bytes go into each, so the same message gets another signature every time.
- Octez has such keys since its third way of signing: older versions are refused.

Source: FIPS 204, `ML-DSA.KeyGen_internal` and `ML-DSA.Sign`; Octez `src/lib_crypto/mldsa44.ml`, `signature_v3.ml`.
"""

import secrets

from cryptography.exceptions import InvalidSignature as OpenSSLInvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from enclave_signer.curves.base import Curve, VersionNotSupported, check_public_key_size, private_key_bytes
from enclave_signer.curves.digest import DigestSigningKey, DigestVerifyingKey
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion

_FACTS = KeyType.ML_DSA_44.facts


class MlDsa44SigningKey(DigestSigningKey):
    """An opened ML-DSA-44 key."""

    __slots__ = ("_key",)

    def __init__(self, seed: bytes) -> None:
        self._key = MLDSA44PrivateKey.from_seed_bytes(seed)
        super().__init__(PublicKey(KeyType.ML_DSA_44, self._key.public_key().public_bytes_raw()))

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        """Sign the digest of a message, differently each time.

        Raises:
            VersionNotSupported: The version is older than such keys.
        """
        _check_version(version)
        return super().sign(message, version)

    def _sign(self, digest: bytes) -> bytes:
        return self._key.sign(digest)


class MlDsa44VerifyingKey(DigestVerifyingKey):
    """A parsed ML-DSA-44 public key."""

    __slots__ = ("_key",)

    def __init__(self, public_key: PublicKey) -> None:
        super().__init__(public_key)
        self._key = MLDSA44PublicKey.from_public_bytes(public_key.data)

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        """Return when the signature is this key's over the digest of the message.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
            VersionNotSupported: The version is older than such keys.
        """
        _check_version(version)
        super().verify(signature, message, version)

    def _verifies(self, signature: bytes, digest: bytes) -> bool:
        try:
            self._key.verify(signature, digest)
        except OpenSSLInvalidSignature:
            return False
        return True


class MlDsa44:
    """The curve, so to speak: a lattice."""

    key_type = KeyType.ML_DSA_44

    def generate(self) -> PrivateKey:
        """Return a new seed."""
        return PrivateKey(KeyType.ML_DSA_44, secrets.token_bytes(_FACTS.private_key_bytes))

    def open(self, private_key: PrivateKey) -> MlDsa44SigningKey:
        """Return the key, ready to sign.

        Raises:
            InvalidPrivateKey: Another curve's key, or not 32 bytes.
        """
        return MlDsa44SigningKey(private_key_bytes(private_key, KeyType.ML_DSA_44))

    def parse_public_key(self, data: bytes) -> MlDsa44VerifyingKey:
        """Return the key, ready to verify; any bytes of the right size are a key.

        Raises:
            InvalidPublicKey: Not 1312 bytes.
        """
        check_public_key_size(data, KeyType.ML_DSA_44)
        return MlDsa44VerifyingKey(PublicKey(KeyType.ML_DSA_44, data))


def _check_version(version: SigningVersion) -> None:
    if version not in _FACTS.versions:
        raise VersionNotSupported(f"{KeyType.ML_DSA_44} has no signing version {int(version)}: use the latest")


CURVE: Curve = MlDsa44()
