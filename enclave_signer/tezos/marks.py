"""The watermark law: which message may be signed after which. The host's stores and the enclave's guard judge by it.

- A mark is the level, round and digest of the last message allowed for one key, one chain and one right: `block`,
  `preattestation` or `attestation` (with or without DAL: one right). Chains, keys and rights do not affect each other.
- Level and round are integers from 0 to 2^31 - 1, compared as integers, level first; outside that range is refused.
- Nothing stored: advance.
- Higher level, or same level and higher round: advance. At most `max_level_jump` levels at once, so that one wrong
  request cannot burn a key for ever.
- Same level, round and digest as stored: repeat. The same bytes give the same signature, so that is safe.
- A stored mark without digest has no repeat: what was signed there is not known.
- Everything else is refused. Marks never move back.
- The same digest means the same message, hence the same level and round; a request that says otherwise is refused.
"""

from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from enclave_signer.tezos.consensus import ConsensusMessage
from enclave_signer.tezos.errors import MarkRefused, MarkTooFar

#: Largest level and round: both are signed 32-bit integers on the chain.
MAX_LEVEL = MAX_ROUND = 2**31 - 1
#: Levels by which one request may pass the stored mark: about a year of blocks, so longer than a baker is away.
DEFAULT_MAX_LEVEL_JUMP = 5_000_000
#: Chains on which one key gets marks by being asked: there is one mainnet, and a few test networks.
MAX_CHAINS_PER_KEY = 16
#: Bytes of the digest by which a repeated message is known.
DIGEST_BYTES = 32


class Verdict(StrEnum):
    """The verdict on a request that may be signed."""

    ADVANCE = "advance"
    REPEAT = "repeat"


class Mark(NamedTuple):
    """A level, a round, and the BLAKE2b-256 of the message there; None when that is not known."""

    level: int
    round: int
    digest: bytes | None

    def __str__(self) -> str:
        return f"level {self.level} round {self.round}"


def mark_of(consensus: ConsensusMessage, message: bytes) -> Mark:
    """Return the mark of a message.

    Args:
        consensus: What the message says about itself.
        message: The whole message, magic byte first.
    """
    return Mark(consensus.level, consensus.round, blake2b(message, digest_size=DIGEST_BYTES).digest())


def merged(stored: Mark | None, mark: Mark) -> Mark:
    """Return the higher of two marks; of two messages at one level and round, neither may be repeated."""
    if stored is None or is_above(mark, stored):
        return mark
    if is_above(stored, mark) or stored.digest == mark.digest:
        return stored
    return Mark(mark.level, mark.round, None)


def is_above(mark: Mark, other: Mark) -> bool:
    """Tell whether a mark has a higher level, or the same level and a higher round."""
    return mark.level > other.level or (mark.level == other.level and mark.round > other.round)


def in_range(mark: Mark) -> bool:
    """Tell whether level and round can occur on a chain."""
    return 0 <= mark.level <= MAX_LEVEL and 0 <= mark.round <= MAX_ROUND


def judge_mark(stored: Mark | None, asked: Mark, max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP) -> Verdict:
    """Judge one request by the law above.

    Args:
        stored: The mark last allowed for this key, chain and right; None when there is none.
        asked: The mark of the message to be signed.
        max_level_jump: Levels, at least 0, by which `asked` may pass `stored`.

    Returns:
        ADVANCE: may be signed once `asked` is stored. REPEAT: may be signed; nothing is to be stored.

    Raises:
        MarkRefused: Never sign this message; the text is the reason.
        MarkTooFar: The same, and the level is the only reason.
    """
    if not in_range(asked):
        raise MarkRefused(f"levels and rounds go from 0 to {MAX_LEVEL}")
    if stored is None:
        return Verdict.ADVANCE
    above = is_above(asked, stored)
    if asked.digest == stored.digest and asked.digest is not None:
        if above or is_above(stored, asked):
            raise MarkRefused("one message cannot have two levels or rounds")
        return Verdict.REPEAT
    if not above:
        raise MarkRefused(_why_not_above(stored, asked))
    if asked.level - stored.level > max_level_jump:
        raise MarkTooFar(f"more than {max_level_jump} levels ahead")
    return Verdict.ADVANCE


def _why_not_above(stored: Mark, asked: Mark) -> str:
    if is_above(stored, asked):
        return "a higher level or round may have been signed already"
    if stored.digest is None:
        return "which message was signed there is not known"
    return "another message was allowed there"
