"""What every curve offers, what it refuses, and what the curves share.

- A private key is 32 bytes, big-endian where it is a scalar; zero and values at or above the group order are refused.
- A public key that is a point is compressed, canonical, on its curve and in its prime-order group; BLS' point at infinity
  is refused.
- Sizes are checked before bytes reach C code.
- No text, `repr` or exception holds a byte of a private key.
- Opened keys and parsed keys are immutable: any number of threads may use one at once.
"""

import secrets
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from enclave_signer.errors import EnclaveSignerError
from enclave_signer.protocol.messages import (
    KeyType,
    PrivateKey,
    PublicKey,
    Signature,
    SigningVersion,
)

#: Bytes of a scalar, and of a group order: all groups here have about 2**256 elements.
SCALAR_BYTES = 32


class CurveError(EnclaveSignerError):
    """Root of what a curve refuses; raised itself when its library is missing or gives wrong answers."""


class InvalidPrivateKey(CurveError):
    """Not a private key of this curve; take the key from its source again."""


class InvalidPublicKey(CurveError):
    """Not a public key of this curve; take the key from its source again."""


class InvalidSignature(CurveError):
    """The signature does not belong to this key and message; do not use it."""


class VersionNotSupported(CurveError):
    """The curve does not sign in this version; ask for one of its row of facts: 1 or 2 for BLS, the latest for ML-DSA-44."""


class ProofNotSupported(CurveError):
    """Only a BLS key can prove its possession; the other curves need no proof."""


class SigningKey(Protocol):
    """An opened private key."""

    @property
    def public_key(self) -> PublicKey:
        """The public key, derived when the key was opened."""
        ...

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        """Sign a message; the same message gets the same signature each time, unless the curve's signatures are hedged.

        Args:
            message: Any number of bytes; the curve hashes them as Tezos does.
            version: How BLS signs; the other curves sign alike under every version that they have.

        Raises:
            VersionNotSupported: The curve does not have the version.
        """
        ...

    def prove_possession(self, other: PublicKey | None = None) -> Signature:
        """Sign the key's own public key, as Tezos wants before it takes a BLS key.

        Args:
            other: Sign this one instead: the common key of an account that several keys have together.

        Raises:
            ProofNotSupported: The key is not a BLS key; it needs no proof.
            InvalidPublicKey: The other one is no BLS key.
        """
        ...


class VerifyingKey(Protocol):
    """A public key that was parsed once and verifies many times."""

    @property
    def public_key(self) -> PublicKey:
        """The key that was parsed."""
        ...

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        """Return when the signature is this key's over this message.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
            VersionNotSupported: The curve does not have the version.
        """
        ...

    def verify_possession(self, proof: Signature, other: PublicKey | None = None) -> None:
        """Return when the proof of possession is this key's, for itself or for another one.

        Raises:
            InvalidSignature: It is not, or is malformed, or of another curve; do not use it.
            ProofNotSupported: The key is not a BLS key; it needs no proof.
        """
        ...


class Expected(Protocol):
    """A verification of which a part can be done before there is a signature; see `bls_expected`."""

    def prepare(self) -> None:
        """Do that part."""
        ...

    def verify(self, signature: Signature) -> None:
        """Return when the signature is right, whether or not that part was done; see `VerifyingKey.verify`."""
        ...


class SignatureCheck(NamedTuple):
    """A signature that has to be verified; `expected`, if there is one, is of the same key, message and version."""

    key: VerifyingKey
    signature: Signature
    message: bytes
    version: SigningVersion
    expected: Expected | None = None

    def verify(self) -> None:
        """Return when it is right; see `VerifyingKey.verify`."""
        if self.expected is not None:
            self.expected.verify(self.signature)
        else:
            self.key.verify(self.signature, self.message, self.version)


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A public test key and what a curve must give for it.

    Attributes:
        private_key: The key.
        public_key: Its public key.
        signatures: Its signatures over `known_answers.MESSAGE`. A curve whose signatures are hedged need not make the same
            ones, but must accept them.
        proof: Its proof of possession, of a curve that has them.
    """

    private_key: bytes
    public_key: bytes
    signatures: tuple[tuple[SigningVersion, bytes], ...]
    proof: bytes | None = None


class Curve(Protocol):
    """A curve; stateless."""

    @property
    def key_type(self) -> KeyType:
        """Its name."""
        ...

    @property
    def known_answer(self) -> KnownAnswer:
        """What it must answer before anything is signed with it."""
        ...

    def generate(self) -> PrivateKey:
        """Return a new private key, uniformly random from the system's generator."""
        ...

    def open(self, private_key: PrivateKey) -> SigningKey:
        """Return the key, checked and ready to sign.

        Raises:
            InvalidPrivateKey: Wrong curve or size, zero, or not below the group order; take it from its source again.
        """
        ...

    def parse_public_key(self, data: bytes) -> VerifyingKey:
        """Return the key, checked and ready to verify.

        Args:
            data: The key, of the size in the curve's row of facts.

        Raises:
            InvalidPublicKey: Wrong size or form, or no point of the group; take it from its source again.
        """
        ...


def private_key_bytes(private_key: PrivateKey, key_type: KeyType) -> bytes:
    """Return the bytes of a private key after checking its curve and size.

    Raises:
        InvalidPrivateKey: Another curve's key, or not of this curve's size.
    """
    if private_key.key_type is not key_type:
        raise InvalidPrivateKey(f"a private key of {private_key.key_type} was given where {key_type} is meant")
    size = key_type.facts.private_key_bytes
    if len(private_key.data) != size:
        raise InvalidPrivateKey(f"a private key of {key_type} has {size} bytes, not {len(private_key.data)}")
    return private_key.data


def scalar_bytes(private_key: PrivateKey, key_type: KeyType, order: bytes) -> bytes:
    """Return the bytes of a private key after checking its curve, its size, and that 0 < key < order.

    Args:
        private_key: What to check.
        key_type: The curve it must belong to.
        order: The group order, 32 bytes, big-endian; so equally long bytes compare as the numbers do.

    Raises:
        InvalidPrivateKey: It is none of this curve.
    """
    data = private_key_bytes(private_key, key_type)
    if not bytes(SCALAR_BYTES) < data < order:
        raise scalar_out_of_range(key_type)
    return data


def scalar_out_of_range(key_type: KeyType) -> InvalidPrivateKey:
    """Return the error for zero, and for values at or above the group order."""
    return InvalidPrivateKey(f"not a private key of {key_type}: it must be above zero and below the group order")


def random_scalar(order: bytes) -> bytes:
    """Return a number between zero and the order, both excluded, as 32 bytes, big-endian.

    Drawing again until one fits keeps it uniform; the smallest order here, BLS', takes 2.2 draws on average.
    """
    while True:
        data = secrets.token_bytes(SCALAR_BYTES)
        if bytes(SCALAR_BYTES) < data < order:
            return data


def check_public_key_size(data: bytes, key_type: KeyType) -> None:
    """Return when a public key has the size of its curve.

    Raises:
        InvalidPublicKey: It has not.
    """
    size = key_type.facts.public_key_bytes
    if len(data) != size:
        raise InvalidPublicKey(f"a public key of {key_type} has {size} bytes, compressed, not {len(data)}")


def signature_bytes(signature: Signature, key_type: KeyType) -> bytes:
    """Return the bytes of a signature after checking its curve and size.

    Raises:
        InvalidSignature: Another curve's signature, or not of this curve's size.
    """
    if signature.key_type is not key_type:
        raise InvalidSignature(f"a signature of {signature.key_type} was given to a key of {key_type}")
    size = key_type.facts.signature_bytes
    if len(signature.data) != size:
        raise InvalidSignature(f"a signature of {key_type} has {size} bytes, not {len(signature.data)}")
    return signature.data


def wrong_signature(key_type: KeyType) -> InvalidSignature:
    """Return the error for a signature of the right size that is not this key's over this message."""
    return InvalidSignature(f"the {key_type} signature does not belong to this key and message")
