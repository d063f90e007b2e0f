"""Blocks, preattestations and attestations: bytes to what the watermark and the guard compare.

- One whole message or a refusal: no byte may be missing, left over, or have a meaning that was not looked at.
- Level and round are never negative, and a block's round is the round of its fitness, not `payload_round`: a proposal
  repeated in a later round keeps the latter.
- The level of the fitness is the level of the header.
- The magic byte decides which operations may follow: 0x12 preattestations (20, 40), 0x13 attestations (21, 23, 41).
  40 and 41 are the forms without a slot that BLS keys sign.
- A DAL bitset is one number. What its bits mean depends on the protocol's parameters and is not looked at.

Source: Octez `block_header_repr.ml`, `fitness_repr.ml`, `operation_repr.ml` (protocols 024 and 025, which are alike here);
`signatory-vectors.json` and `protocols.json` in `tests/vectors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from struct import Struct
from types import MappingProxyType
from typing import NamedTuple

from enclave_signer.tezos.base58 import Kind, encode
from enclave_signer.tezos.errors import MalformedMessage
from enclave_signer.tezos.protocols import MAX_DAL_BITSET_BYTES

BLOCK_MAGIC = 0x11
PREATTESTATION_MAGIC = 0x12
ATTESTATION_MAGIC = 0x13
#: First bytes of the messages that the watermark and the guard protect.
CONSENSUS_MAGIC = (BLOCK_MAGIC, PREATTESTATION_MAGIC, ATTESTATION_MAGIC)

# magic, chain id, level, protocol, predecessor, timestamp, validation pass, operations hash, length of the fitness
_BLOCK_HEAD = Struct(">x4siB32xqB32xI")
# 1, version, 4, level, length of locked round (0 or 4), [locked round], 4, predecessor round, 4, round
_FITNESS_UNLOCKED = Struct(">IBIiII4xIi")
_FITNESS_LOCKED = Struct(">IBIiIiI4xIi")
_TENDERBAKE_FITNESS_VERSION = 2
# context, payload hash, payload round, proof-of-work nonce, flag of the seed nonce hash
_BLOCK_TAIL = Struct(">32x32xi8xB")
_SEED_NONCE_HASH_BYTES = 32
_PER_BLOCK_VOTES_BYTES = 1
# magic, chain id, branch, tag, [slot], level, round, block payload hash
_VOTE_WITH_SLOT = Struct(">x4s32xBxxii32x")
_VOTE = Struct(">x4s32xBii32x")
_TAG_OFFSET = 37


class Right(StrEnum):
    """What may be signed once per chain, key, level and round."""

    # As for the types of keys: marks are found by their right for every message.
    __hash__ = str.__hash__

    BLOCK = "block"
    PREATTESTATION = "preattestation"
    ATTESTATION = "attestation"


class ConsensusKind(StrEnum):
    """The kind of a consensus message, by its name in the policy."""

    __hash__ = str.__hash__

    BLOCK = "block"
    PREATTESTATION = "preattestation"
    ATTESTATION = "attestation"
    ATTESTATION_WITH_DAL = "attestation_with_dal"

    @property
    def right(self) -> Right:
        """The right that signing uses up: attestations with and without DAL share one."""
        return _RIGHTS[self]


_RIGHTS = {
    ConsensusKind.BLOCK: Right.BLOCK,
    ConsensusKind.PREATTESTATION: Right.PREATTESTATION,
    ConsensusKind.ATTESTATION: Right.ATTESTATION,
    ConsensusKind.ATTESTATION_WITH_DAL: Right.ATTESTATION,
}


class ConsensusMessage(NamedTuple):
    """What a consensus message says about itself.

    Attributes:
        kind: Its kind; `kind.right` is what the watermark compares.
        chain_id: The chain, base58 (`Net…`).
        level: 0 to 2**31 - 1.
        round: 0 to 2**31 - 1.
    """

    kind: ConsensusKind
    chain_id: str
    level: int
    round: int


@dataclass(frozen=True, slots=True)
class _VoteForm:
    """How an attestation or a preattestation is laid out."""

    kind: ConsensusKind
    layout: Struct
    dal_bitset: bool = False


_VOTE_FORMS: Mapping[int, Mapping[int, _VoteForm]] = MappingProxyType(
    {
        PREATTESTATION_MAGIC: {
            20: _VoteForm(ConsensusKind.PREATTESTATION, _VOTE_WITH_SLOT),
            40: _VoteForm(ConsensusKind.PREATTESTATION, _VOTE),
        },
        ATTESTATION_MAGIC: {
            21: _VoteForm(ConsensusKind.ATTESTATION, _VOTE_WITH_SLOT),
            23: _VoteForm(ConsensusKind.ATTESTATION_WITH_DAL, _VOTE_WITH_SLOT, dal_bitset=True),
            41: _VoteForm(ConsensusKind.ATTESTATION, _VOTE),
        },
    }
)


def parse_consensus(message: bytes) -> ConsensusMessage:
    """Read a message that begins with one of `CONSENSUS_MAGIC`.

    Args:
        message: The whole message to be signed, magic byte included.

    Returns:
        Kind, chain, level and round.

    Raises:
        MalformedMessage: It is not exactly one such message; sign nothing, look at the client that sent it.
    """
    if not message:
        raise MalformedMessage("empty message; a consensus message begins with 0x11, 0x12 or 0x13")
    magic = message[0]
    if magic == BLOCK_MAGIC:
        return _parse_block(message)
    forms = _VOTE_FORMS.get(magic)
    if forms is None:
        raise MalformedMessage(f"first byte 0x{magic:02x}; a consensus message begins with 0x11, 0x12 or 0x13")
    return _parse_vote(message, forms)


@lru_cache(maxsize=64)
def _chain_id(raw: bytes) -> str:
    """Write a chain id; cached, for a signer sees one or two chains and base58 costs more than all of the parsing."""
    return encode(Kind.CHAIN_ID, raw)


def _parse_vote(message: bytes, forms: Mapping[int, _VoteForm]) -> ConsensusMessage:
    """Read a preattestation or an attestation."""
    if len(message) <= _TAG_OFFSET:
        raise MalformedMessage(f"message of {len(message)} bytes ends before the operation's tag at byte {_TAG_OFFSET}")
    form = forms.get(message[_TAG_OFFSET])
    if form is None:
        raise MalformedMessage(
            f"operation tag {message[_TAG_OFFSET]} after first byte 0x{message[0]:02x}; "
            f"expected {' or '.join(map(str, forms))}"
        )
    size = form.layout.size
    if len(message) < size or (len(message) > size and not form.dal_bitset):
        raise MalformedMessage(_size_text(form.kind, len(message), size))
    chain, _, level, round_ = form.layout.unpack_from(message)
    if form.dal_bitset:
        _check_dal_bitset(message, size)
    if level < 0 or round_ < 0:
        _check_not_negative(form.kind, "level", level)
        _check_not_negative(form.kind, "round", round_)
    return ConsensusMessage(form.kind, _chain_id(chain), level, round_)


def _check_dal_bitset(message: bytes, start: int) -> None:
    """Check that the rest is one non-negative integer in its shortest form, as Octez writes the DAL bitset.

    The first byte holds 6 bits, the sign (0x40) and the flag "more follows" (0x80); the others 7 bits and that flag.
    """
    size = len(message) - start
    if not 1 <= size <= MAX_DAL_BITSET_BYTES:
        raise MalformedMessage(
            f"attestation_with_dal: DAL bitset of {size} bytes; expected 1 to {MAX_DAL_BITSET_BYTES}"
        )
    if message[start] & 0x40:
        raise MalformedMessage("attestation_with_dal: negative DAL bitset")
    if message[-1] & 0x80 or (size > 1 and min(message[start:-1]) < 0x80):
        raise MalformedMessage("attestation_with_dal: the message does not end where its DAL bitset ends")
    if size > 1 and message[-1] == 0:
        raise MalformedMessage("attestation_with_dal: DAL bitset not in its shortest form")


def _parse_block(message: bytes) -> ConsensusMessage:
    """Read a block header."""
    if len(message) < _BLOCK_HEAD.size:
        raise MalformedMessage(
            f"block: message of {len(message)} bytes ends before the fitness at byte {_BLOCK_HEAD.size}"
        )
    chain, level, _, _, _, fitness_bytes = _BLOCK_HEAD.unpack_from(message)
    end_of_fitness = _BLOCK_HEAD.size + fitness_bytes
    end_of_tail = end_of_fitness + _BLOCK_TAIL.size
    if len(message) < end_of_tail:
        raise MalformedMessage(f"block: message of {len(message)} bytes where at least {end_of_tail} are needed")
    fitness_level, round_ = _parse_fitness(message, fitness_bytes)
    payload_round, seed_nonce_flag = _BLOCK_TAIL.unpack_from(message, end_of_fitness)
    size = end_of_tail + _seed_nonce_hash_bytes(seed_nonce_flag) + _PER_BLOCK_VOTES_BYTES
    if len(message) != size:
        raise MalformedMessage(_size_text(ConsensusKind.BLOCK, len(message), size))
    _check_not_negative(ConsensusKind.BLOCK, "level", level)
    _check_not_negative(ConsensusKind.BLOCK, "payload_round", payload_round)
    if fitness_level != level:
        raise MalformedMessage(f"block: level {level} in the header, {fitness_level} in the fitness")
    return ConsensusMessage(ConsensusKind.BLOCK, _chain_id(chain), level, round_)


def _parse_fitness(message: bytes, fitness_bytes: int) -> tuple[int, int]:
    """Read level and round. Any 4 bytes pass as predecessor round: bakers send -(round + 1), 0 is on record, too."""
    start = _BLOCK_HEAD.size
    locked_round = 0
    if fitness_bytes == _FITNESS_UNLOCKED.size:
        *lengths, level, locked, predecessor, last, round_ = _FITNESS_UNLOCKED.unpack_from(message, start)
        expected_locked = 0
    elif fitness_bytes == _FITNESS_LOCKED.size:
        *lengths, level, locked, locked_round, predecessor, last, round_ = _FITNESS_LOCKED.unpack_from(message, start)
        expected_locked = 4
    else:
        raise MalformedMessage(f"block: fitness of {fitness_bytes} bytes; a Tenderbake fitness has 33 or 37")
    if lengths != [1, _TENDERBAKE_FITNESS_VERSION, 4] or (locked, predecessor, last) != (expected_locked, 4, 4):
        raise MalformedMessage("block: the fitness is not that of Tenderbake (version 2 and four parts of 4 bytes)")
    _check_not_negative(ConsensusKind.BLOCK, "locked_round", locked_round)
    _check_not_negative(ConsensusKind.BLOCK, "round", round_)
    return level, round_


def _seed_nonce_hash_bytes(flag: int) -> int:
    """Size of what follows the flag of the seed nonce hash."""
    if flag not in (0x00, 0xFF):
        raise MalformedMessage(f"block: flag 0x{flag:02x} of the seed nonce hash; expected 00 or ff")
    return _SEED_NONCE_HASH_BYTES if flag else 0


def _check_not_negative(kind: ConsensusKind, field: str, value: int) -> None:
    if value < 0:
        raise MalformedMessage(f"{kind}: negative {field} {value}")


def _size_text(kind: ConsensusKind, got_bytes: int, needed_bytes: int) -> str:
    return f"{kind}: message of {got_bytes} bytes instead of {needed_bytes}; send exactly one message"
