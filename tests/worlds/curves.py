"""A curve whose signatures are hashes: it costs a microsecond, and tells a witness of every signature that is made."""

from collections.abc import Callable
from hashlib import blake2b
from random import Random

from enclave_signer.curves import InvalidSignature
from enclave_signer.protocol.messages import KeyType, PrivateKey, PublicKey, Signature, SigningVersion

#: Called with the public key and the message of every signature, when it is made.
Witness = Callable[[bytes, bytes], None]


def public_bytes(seed: bytes) -> bytes:
    """Return the public key of a seed."""
    return blake2b(seed, digest_size=32).digest()


class HashKey:
    """An opened key; also parsed, as its public key is all that is needed to sign."""

    def __init__(self, public_key: PublicKey, witness: Witness) -> None:
        self.public_key = public_key
        self._witness = witness

    def sign(self, message: bytes, version: SigningVersion) -> Signature:
        self._witness(self.public_key.data, message)
        return self._signature(message)

    def _signature(self, message: bytes) -> Signature:
        return Signature(KeyType.ED25519, blake2b(message, key=self.public_key.data, digest_size=64).digest())

    def prove_possession(self, other: PublicKey | None = None) -> Signature:
        raise NotImplementedError

    def verify(self, signature: Signature, message: bytes, version: SigningVersion) -> None:
        if signature != self._signature(message):
            raise InvalidSignature("the signature does not belong to this key and message")

    def verify_possession(self, proof: Signature, other: PublicKey | None = None) -> None:
        raise NotImplementedError


class HashCurve:
    """The curve, in place of Ed25519."""

    key_type = KeyType.ED25519

    def __init__(self, chance: Random, witness: Witness) -> None:
        self._chance = chance
        self._witness = witness

    def generate(self) -> PrivateKey:
        return PrivateKey(KeyType.ED25519, self._chance.randbytes(32))

    def open(self, private_key: PrivateKey) -> HashKey:
        return HashKey(PublicKey(KeyType.ED25519, public_bytes(private_key.data)), self._witness)

    def parse_public_key(self, data: bytes) -> HashKey:
        return HashKey(PublicKey(KeyType.ED25519, data), self._witness)
