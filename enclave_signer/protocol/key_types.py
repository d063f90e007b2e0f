"""The types of keys, and one row of facts about each: whatever differs from curve to curve and is no computation.

- A type without a row cannot be defined, and a row without one of its facts neither: there are no defaults.
- No other code asks for the curve of a key; it asks the row for the fact it needs.
- What a curve computes, and must answer, is in `enclave_signer.curves`.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple, Self


class SigningVersion(IntEnum):
    """How a BLS key signs; the other curves sign alike under every version that they have.

    `V1` is the message-augmentation suite (public key prepended), `V2` and `LATEST` the proof-of-possession suite;
    BLS has no `V0`. ML-DSA-44 has only `LATEST`: it is younger than the others.
    """

    V0 = 0
    V1 = 1
    V2 = 2
    LATEST = 255


class Beginning(NamedTuple):
    """How a text in base58 begins.

    Attributes:
        label: The text, for people.
        prefix: The bytes before the payload, in hexadecimal. Source: Octez `src/lib_crypto/base58.ml`.
    """

    label: str
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveTexts:
    """How the keys and signatures of a curve are written in base58.

    Attributes:
        hash_prefix: The prefix of addresses; see `Beginning`.
        public_key: How public keys begin.
        private_keys: How private keys begin, and the bytes that follow: the key, alone or before its public key, or what was
            made of it. The first is the usual form; encrypted keys hold it.
        encrypted_key: How encrypted private keys begin.
        signature: How signatures begin.
        little_endian: Whether a private key is the other way round.
    """

    hash_prefix: str
    public_key: Beginning
    private_keys: tuple[tuple[Beginning, int], ...]
    encrypted_key: Beginning
    signature: Beginning
    little_endian: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveFacts:
    """Facts about the keys of a curve.

    Attributes:
        tag: The byte before its public keys and their hashes, wherever Tezos writes them in bytes.
        name: How commands call it.
        title: How people write its name.
        address: How the hashes of its public keys begin, which is how people call its keys.
        private_key_bytes: Size of a private key: a big-endian scalar, or a seed.
        public_key_bytes: Size of a public key: a compressed point, or what FIPS 204 encodes.
        signature_bytes: Size of a signature: r || s for ECDSA, compressed G2 for BLS.
        versions: The signing versions that it has.
        proves_possession: Whether Tezos takes such a key only with a proof of possession, a signature of the key itself.
        slow: Whether one signature takes longer than waking a thread (about 100 microseconds).
        texts: How its keys and signatures are written.
        hedged: Whether each signature has random bytes in it, so that the same message gets another one every time.
        bakes: Whether Tezos lets it make blocks and attest; one that does not signs no consensus message.
        experimental: Whether a configuration must ask for it: not every chain has such keys.
        pem_name: The class of `cryptography` for its private keys in PEM and DER, or the name there of an elliptic curve;
            None: there are none.
    """

    tag: int
    name: str
    title: str
    address: str
    private_key_bytes: int
    public_key_bytes: int
    signature_bytes: int
    versions: frozenset[SigningVersion]
    proves_possession: bool
    slow: bool
    texts: CurveTexts
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
            title="Ed25519",
            address="tz1",
            private_key_bytes=32,
            public_key_bytes=32,
            signature_bytes=64,
            versions=frozenset(SigningVersion),
            proves_possession=False,
            slow=False,
            texts=CurveTexts(
                hash_prefix="06a19f",
                public_key=Beginning("edpk", "0d0f25d9"),
                private_keys=((Beginning("edsk", "0d0f3a07"), 32), (Beginning("edsk", "2bf64e07"), 64)),
                encrypted_key=Beginning("edesk", "075a3cb329"),
                signature=Beginning("edsig", "09f5cd8612"),
                little_endian=False,
            ),
            hedged=False,
            bakes=True,
            experimental=False,
            pem_name="Ed25519PrivateKey",
        ),
    )
    SECP256K1 = (
        "Secp256k1",
        CurveFacts(
            tag=1,
            name="secp256k1",
            title="secp256k1",
            address="tz2",
            private_key_bytes=32,
            public_key_bytes=33,
            signature_bytes=64,
            versions=frozenset(SigningVersion),
            proves_possession=False,
            slow=False,
            texts=CurveTexts(
                hash_prefix="06a1a1",
                public_key=Beginning("sppk", "03fee256"),
                private_keys=((Beginning("spsk", "11a2e0c9"), 32),),
                encrypted_key=Beginning("spesk", "09edf1ae96"),
                signature=Beginning("spsig1", "0d7365133f"),
                little_endian=False,
            ),
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
            title="P-256",
            address="tz3",
            private_key_bytes=32,
            public_key_bytes=33,
            signature_bytes=64,
            versions=frozenset(SigningVersion),
            proves_possession=False,
            slow=False,
            texts=CurveTexts(
                hash_prefix="06a1a4",
                public_key=Beginning("p2pk", "03b28b7f"),
                private_keys=((Beginning("p2sk", "1051eebd"), 32),),
                encrypted_key=Beginning("p2esk", "09303973ab"),
                signature=Beginning("p2sig", "36f02c34"),
                little_endian=False,
            ),
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
            title="BLS",
            address="tz4",
            private_key_bytes=32,
            public_key_bytes=48,
            signature_bytes=96,
            versions=frozenset(SigningVersion) - {SigningVersion.V0},
            proves_possession=True,
            slow=True,
            texts=CurveTexts(
                hash_prefix="06a1a6",
                public_key=Beginning("BLpk", "069587cc"),
                private_keys=((Beginning("BLsk", "0396c028"), 32),),
                encrypted_key=Beginning("BLesk", "02051e3519"),
                signature=Beginning("BLsig", "28ab40cf"),
                little_endian=True,
            ),
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
            title="ML-DSA-44",
            address="tz5",
            private_key_bytes=32,
            public_key_bytes=1312,
            signature_bytes=2420,
            versions=frozenset({SigningVersion.LATEST}),
            proves_possession=False,
            slow=True,
            texts=CurveTexts(
                hash_prefix="06a1a9",
                public_key=Beginning("mdpk", "0d07ed43"),
                private_keys=((Beginning("mdsk", "09397439"), 3872),),
                encrypted_key=Beginning("mdesk", "05318527ac"),
                signature=Beginning("mdsig", "019c2dd203"),
                little_endian=False,
            ),
            hedged=True,
            bakes=False,
            experimental=True,
            pem_name="MLDSA44PrivateKey",
        ),
    )


#: Types whose private keys can be in PEM and DER.
PEM_KEY_TYPES = tuple(key_type for key_type in KeyType if key_type.facts.pem_name is not None)
