"""The calls and results that cross the wire, as frozen values.

Source: tee-signer `doc/rpc.md` and the behaviour recorded from it; `docs/protocol.md` has the CDDL.
Values are plain data: `codec` checks types, sizes and ranges while decoding, so a decoded value is valid.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from enclave_signer.protocol.key_types import KeyType as KeyType  # noqa: PLC0414 -- part of messages
from enclave_signer.protocol.key_types import SigningVersion as SigningVersion  # noqa: PLC0414 -- part of messages

#: The largest message that is signed: a Tezos operation is at most 32 KiB. tee-signer stops at 4096 bytes.
MAX_MESSAGE_BYTES = 32 * 1024
#: A new random value from the client for each proof.
NONCE_BYTES = 32
#: An Ed25519 key, and its signature.
ATTESTED_KEY_BYTES = 32
CHANNEL_PROOF_BYTES = 64
#: A SHA-256.
INVENTORY_BYTES = 32
#: Attestation tokens have 4 to 8 KiB.
MAX_TOKEN_CHARS = 32768
#: Our blobs and Google's ciphertexts of a private key have a few hundred bytes.
MAX_BLOB_BYTES = 4096


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, of the size in its type's row of facts: a compressed point, or what FIPS 204 encodes."""

    key_type: KeyType
    data: bytes


class Signature(NamedTuple):
    """A signature, or a proof of possession, which is a BLS signature over the public key."""

    key_type: KeyType
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A private key in clear. Never printed, never compared."""

    key_type: KeyType
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The identity and key to seal with, of those that the enclave's configuration allows; None: not given."""

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
    """`PublicKeyFrom` on the wire: of a sealed key, which the sealer opens for it. Answer: `PublicKey`."""

    blob: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProvePossession:
    """Sign the public key of an open BLS key. Answer: `Signature`."""

    handle: int


@dataclass(frozen=True, slots=True)
class ProvePossessionOf:
    """Sign another public key with an open BLS key: that of an account of several keys. Answer: `Signature`."""

    handle: int
    public_key: PublicKey


@dataclass(frozen=True, slots=True)
class Reseal:
    """Reseal a sealed key under the key-encryption key `target`. Answer: `SealedKey` without a handle."""

    blob: bytes = field(repr=False)
    target: str


class Purpose(StrEnum):
    """What an attestation is asked for."""

    #: A token, and a signature by which this connection ends at the process that the token is about.
    CHANNEL = "channel"
    #: The signature alone, of the key that an earlier token is about.
    SESSION = "session"
    #: A token to be shown to others; it proves no channel.
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Attest:
    """Prove what runs here. Answer: `Attestation`. May be asked before `Initialize`."""

    nonce: bytes
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class UseKey:
    """Use a key that is open in the enclave already, by its public key hash. Answer: `ImportedKey`."""

    pkh: str


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
    | ProvePossessionOf
    | Reseal
    | Attest
    | UseKey
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


@dataclass(frozen=True, slots=True)
class Attestation:
    """What proves an enclave; nothing here is verified. What it is bound to: `binding`.

    Attributes:
        attested_key: The Ed25519 key that the process made at its start; the token is about it.
        token: The attestation token; None for `Purpose.SESSION`.
        inventory: Digest of the public keys that are open in the process; None where there is no token.
        channel_proof: The key's signature over this connection; None for `Purpose.REPORT`.
    """

    attested_key: bytes
    token: str | None = field(default=None, repr=False)
    inventory: bytes | None = None
    channel_proof: bytes | None = field(default=None, repr=False)


Result = None | ImportedKey | SealedKey | Signature | PublicKey | Attestation
