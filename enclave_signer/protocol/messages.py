"""The calls and results that cross the wire, as frozen values.

Source: tee-signer `doc/rpc.md` and the behaviour recorded from it; `docs/protocol.md` has the CDDL.
Values are plain data: `codec` checks types, sizes and ranges while decoding, so a decoded value is valid.
"""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class KeyType(StrEnum):
    """A curve, by its name on the wire."""

    ED25519 = "Ed25519"
    SECP256K1 = "Secp256k1"
    P256 = "NistP256"
    BLS = "Bls"


class SigningVersion(IntEnum):
    """How a BLS key signs; the other curves sign alike under every version.

    `V1` is the message-augmentation suite (public key prepended), `V2` and `LATEST` the proof-of-possession suite;
    BLS has no `V0`.
    """

    V0 = 0
    V1 = 1
    V2 = 2
    LATEST = 255


#: The largest message that is signed: a Tezos operation is at most 32 KiB. tee-signer stops at 4096 bytes.
MAX_MESSAGE_BYTES = 32 * 1024
#: Our blobs and Google's ciphertexts of a private key have a few hundred bytes.
MAX_BLOB_BYTES = 4096
#: Bytes of a private key: a big-endian scalar, or the Ed25519 seed.
PRIVATE_KEY_BYTES = 32
#: Bytes of a public key: compressed points; G1 for BLS.
PUBLIC_KEY_BYTES = {KeyType.ED25519: 32, KeyType.SECP256K1: 33, KeyType.P256: 33, KeyType.BLS: 48}
#: Bytes of a signature: r || s for ECDSA, compressed G2 for BLS.
SIGNATURE_BYTES = {KeyType.ED25519: 64, KeyType.SECP256K1: 64, KeyType.P256: 64, KeyType.BLS: 96}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: compressed point, or the 32 bytes of Ed25519."""

    key_type: KeyType
    data: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, or a proof of possession, which is a BLS signature over the public key."""

    key_type: KeyType
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A private key in clear: 32 bytes. Never printed, never compared."""

    key_type: KeyType
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Which of the identities and keys its configuration allows the enclave shall seal with; None: not given."""

    wip_provider_path: str | None = None
    encryption_key_path: str | None = None


@dataclass(frozen=True, slots=True)
class Initialize:
    """Open the session's sealer. Answer: None."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Import:
    """Open a sealed key. Answer: `ImportedKey`."""

    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImportUnencrypted:
    """Seal a key given in clear and keep it open. Answer: `SealedKey` with a handle."""

    private_key: PrivateKey


@dataclass(frozen=True, slots=True)
class Generate:
    """Make and seal a key. Answer: `SealedKey` without a handle."""

    key_type: KeyType


@dataclass(frozen=True, slots=True)
class GenerateAndImport:
    """Make and seal a key and keep it open. Answer: `SealedKey` with a handle."""

    key_type: KeyType


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign with an open key. Answer: `Signature`."""

    handle: int
    message: bytes = field(repr=False)
    version: SigningVersion = SigningVersion.LATEST


@dataclass(frozen=True, slots=True)
class SignWith:
    """Sign with a sealed key, opened for this call only. Answer: `Signature`."""

    blob: bytes = field(repr=False)
    message: bytes = field(repr=False)
    version: SigningVersion = SigningVersion.LATEST


@dataclass(frozen=True, slots=True)
class GetPublicKey:
    """`PublicKey` on the wire: of an open key. Answer: `PublicKey`."""

    handle: int


@dataclass(frozen=True, slots=True)
class GetPublicKeyFrom:
    """`PublicKeyFrom` on the wire: of a sealed key. Answer: `PublicKey`."""

    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProvePossession:
    """Sign the public key of an open BLS key. Answer: `Signature`."""

    handle: int


Request = (
    Initialize
    | Import
    | ImportUnencrypted
    | Generate
    | GenerateAndImport
    | Sign
    | SignWith
    | GetPublicKey
    | GetPublicKeyFrom
    | ProvePossession
)


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key that was opened; `handle` is good on this connection only."""

    public_key: PublicKey
    handle: int


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A key that was sealed; `handle` is None when it was not kept open."""

    blob: bytes = field(repr=False)
    public_key: PublicKey
    handle: int | None = None


Result = None | ImportedKey | SealedKey | Signature | PublicKey
