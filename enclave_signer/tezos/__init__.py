"""Tezos text and bytes: base58check, keys, consensus messages, and which may follow which. Pure; both programs may enter here."""

from enclave_signer.tezos.base58 import MAX_TEXT_CHARS, PUBLIC_KEY_HASH_BYTES, Family, Kind, decode, encode, kinds_of
from enclave_signer.tezos.consensus import (
    CONSENSUS_MAGIC,
    ConsensusKind,
    ConsensusMessage,
    Right,
    parse_consensus,
)
from enclave_signer.tezos.errors import (
    EncryptedSecretKey,
    MalformedBase58,
    MalformedMessage,
    MarkRefused,
    MarkTooFar,
    TezosError,
)
from enclave_signer.tezos.keys import (
    check_has_key,
    check_public_key_hash,
    encode_public_key,
    encode_signature,
    parse_public_key,
    parse_public_key_hash,
    parse_secret_key,
    parse_signature,
    public_key_hash,
    secret_key_labels,
)
from enclave_signer.tezos.marks import MAX_CHAINS_PER_KEY, Mark, Verdict, judge_mark, mark_of
from enclave_signer.tezos.masking import masked, may_hold_secret_key
from enclave_signer.tezos.protocols import PROTOCOLS, Protocol

__all__ = [
    "CONSENSUS_MAGIC",
    "MAX_CHAINS_PER_KEY",
    "MAX_TEXT_CHARS",
    "PROTOCOLS",
    "PUBLIC_KEY_HASH_BYTES",
    "ConsensusKind",
    "ConsensusMessage",
    "EncryptedSecretKey",
    "Family",
    "Kind",
    "MalformedBase58",
    "MalformedMessage",
    "Mark",
    "MarkRefused",
    "MarkTooFar",
    "Protocol",
    "Right",
    "TezosError",
    "Verdict",
    "check_has_key",
    "check_public_key_hash",
    "decode",
    "encode",
    "encode_public_key",
    "encode_signature",
    "judge_mark",
    "kinds_of",
    "mark_of",
    "masked",
    "may_hold_secret_key",
    "parse_consensus",
    "parse_public_key",
    "parse_public_key_hash",
    "parse_secret_key",
    "parse_signature",
    "public_key_hash",
    "secret_key_labels",
]
