"""Every curve but BLS: they sign the BLAKE2b-256 digest of a message.

- Every signing version that they have means the same to them, and there are no proofs of possession.

Source: tee-signer 4f91388, recorded; Octez `Signature.sign`.
"""

from abc import ABC, abstractmethod
from hashlib import blake2b

from enclave_signer.curves.base import ProofNotSupported, signature_bytes, wrong_signature
from enclave_signer.protocol.messages import KeyType, PublicKey, Signature, SigningVersion

#: Bytes of the digest that is signed.
DIGEST_BYTES = 32


class DigestSigningKey(ABC):
    """An opened private key of a curve that signs digests."""

    __slots__ = ("_key_type", "public_key")

    public_key: PublicKey

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key
        self._key_type = public_key.key_type

    def __repr__(self) -> str:
        return f"<opened {self._key_type} key>"

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        """Sign the digest of a message; the version changes nothing."""
        del version
        return Signature(self._key_type, self._sign(blake2b(message, digest_size=DIGEST_BYTES).digest()))

    def prove_possession(self, other: PublicKey | None = None) -> Signature:
        """Refuse.

        Raises:
            ProofNotSupported: Always; only BLS keys need a proof.
        """
        del other
        raise _no_proof(self._key_type)

    @abstractmethod
    def _sign(self, digest: bytes) -> bytes:
        """Return the signature over a digest, of the curve's size."""


class DigestVerifyingKey(ABC):
    """A parsed public key of a curve that signs digests."""

    __slots__ = ("_key_type", "public_key")

    public_key: PublicKey

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key
        self._key_type = public_key.key_type

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        """Return when the signature is this key's over the digest of the message; the version changes nothing.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
        """
        del version
        data = signature_bytes(signature, self._key_type)
        if not self._verifies(data, blake2b(message, digest_size=DIGEST_BYTES).digest()):
            raise wrong_signature(self._key_type)

    def verify_possession(self, proof: Signature, other: PublicKey | None = None) -> None:
        """Refuse.

        Raises:
            ProofNotSupported: Always; only BLS keys have a proof.
        """
        del proof, other
        raise _no_proof(self._key_type)

    @abstractmethod
    def _verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether bytes of the curve's size are this key's signature over a digest."""


def _no_proof(key_type: KeyType) -> ProofNotSupported:
    return ProofNotSupported(f"proof of possession is not supported for {key_type}: only BLS keys need one")
