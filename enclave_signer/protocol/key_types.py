"""The types of keys, and one row of facts about each: whatever differs from curve to curve and is no computation.

- A type without a row cannot be defined, and a row without one of its facts neither: there are no defaults.
- No other code asks for the curve of a key; it asks the row for the fact it needs.
- What a curve computes is in `enclave_signer.curves`, how its texts begin in `enclave_signer.tezos.base58`.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Self


class SigningVersion(IntEnum):
    """How a BLS key signs; the other curves sign alike under every version that they have.

    `V1` is the message-augmentation suite (public key prepended), `V2` and `LATEST` the proof-of-possession suite;
    BLS has no `V0`. ML-DSA-44 has only `LATEST`: it is younger than the others.
    """

    V0 = 0
    V1 = 1
    V2 = 2
    LATEST = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFacts:
    """Facts about the keys of a curve.

    Attributes:
        tag: The byte before its public keys and their hashes, wherever Tezos writes them in bytes.
        name: How commands call it.
        address: How the hashes of its public keys begin, which is how people call its keys.
        private_key_bytes: Size of a private key: a big-endian scalar, or a seed.
        public_key_bytes: Size of a public key: a compressed point, or what FIPS 204 encodes.
        signature_bytes: Size of a signature: r || s for ECDSA, compressed G2 for BLS.
        versions: The signing versions that it has.
        proves_possession: Whether Tezos takes such a key only with a proof of possession, a signature of the key itself.
        slow: Whether one signature takes longer than waking a thread (about 100 microseconds).
        little_endian_text: Whether a private key is the other way round in base58.
        hedged: Whether each signature has random bytes in it, so that the same message gets another one every time.
        bakes: Whether Tezos lets it make blocks and attest; one that does not signs no consensus message.
        experimental: Whether a configuration must ask for it: not every chain has such keys.
        pem_name: What its private keys in PEM and DER are called by `cryptography`; None: there are none.
    """

    tag: int
    name: str
    address: str
    private_key_bytes: int
    public_key_bytes: int
    signature_bytes: int
    versions: frozenset[SigningVersion]
    proves_possession: bool
    slow: bool
    little_endian_text: bool
    hedged: bool
    bakes: bool
    experimental: bool
    pem_name: str | None


class KeyType(StrEnum):
    """A curve, by its name on the wire, with its facts."""

    facts: CurveFacts

    # That of `Enum` is Python, and keys are found by their type for every message.
    __hash__ = str.__hash__

    def __new__(cls, wire_name: str, facts: CurveFacts) -> Self:
        """Make a member of a name and a row; nothing is made at run time, `values.key_type` finds one by its name."""
        member = str.__new__(cls, wire_name)
        member._value_ = wire_name
        member.facts = facts
        return member

    ED25519 = (
        "Ed25519",
        CurveFacts(
            tag=0,
            name="ed25519",
            address="tz1",
            private_key_bytes=32,
            public_key_bytes=32,
            signature_bytes=64,
            versions=frozenset(SigningVersion),
            proves_possession=False,
            slow=False,
            little_endian_text=False,
            hedged=False,
            bakes=True,
            experimental=False,
            pem_name="ed25519",
        ),
    )
    SECP256K1 = (
        "Secp256k1",
        CurveFacts(
            tag=1,
            name="secp256k1",
            address="tz2",
            private_key_bytes=32,
            public_key_bytes=33,
            signature_bytes=64,
            versions=frozenset(SigningVersion),
            proves_possession=False,
            slow=False,
            little_endian_text=False,
            hedged=False,
            bakes=True,
            experimental=False,
            pem_name="secp256k1",
        ),
    )
    P256 = (
        "NistP256",
        CurveFacts(
            tag=2,
            name="p256",
            address="tz3",
            private_key_bytes=32,
            public_key_bytes=33,
            signature_bytes=64,
            versions=frozenset(SigningVersion),
            proves_possession=False,
            slow=False,
            little_endian_text=False,
            hedged=False,
            bakes=True,
            experimental=False,
            pem_name="secp256r1",
        ),
    )
    BLS = (
        "Bls",
        CurveFacts(
            tag=3,
            name="bls",
            address="tz4",
            private_key_bytes=32,
            public_key_bytes=48,
            signature_bytes=96,
            versions=frozenset(SigningVersion) - {SigningVersion.V0},
            proves_possession=True,
            slow=True,
            little_endian_text=True,
            hedged=False,
            bakes=True,
            experimental=False,
            pem_name=None,
        ),
    )
    ML_DSA_44 = (
        "MlDsa44",
        CurveFacts(
            tag=4,
            name="mldsa44",
            address="tz5",
            private_key_bytes=32,
            public_key_bytes=1312,
            signature_bytes=2420,
            versions=frozenset({SigningVersion.LATEST}),
            proves_possession=False,
            slow=True,
            little_endian_text=False,
            hedged=True,
            bakes=False,
            experimental=True,
            pem_name="ml-dsa-44",
        ),
    )
