"""The watermark law as stores apply it: whose mark it is, and the words of a refusal. Every store judges by `judge`.

The law itself is `enclave_signer.tezos.marks`: the enclave's guard goes by the same one.
"""

from dataclasses import dataclass

from enclave_signer.tezos.consensus import Right
from enclave_signer.tezos.errors import MarkRefused, MarkTooFar
from enclave_signer.tezos.marks import (
    DEFAULT_MAX_LEVEL_JUMP,
    MAX_LEVEL,
    MAX_ROUND,
    Mark,
    Verdict,
    in_range,
    is_above,
    judge_mark,
)
from host_backend.errors import WatermarkRejected

__all__ = [
    "DEFAULT_MAX_LEVEL_JUMP",
    "MAX_LEVEL",
    "MAX_ROUND",
    "Mark",
    "MarkKey",
    "Verdict",
    "in_range",
    "is_above",
    "judge",
]


@dataclass(frozen=True, slots=True)
class MarkKey:
    """What a mark belongs to: chain (`Net…`), public-key hash (`tz…`) and right."""

    chain_id: str
    pkh: str
    right: Right

    def __str__(self) -> str:
        return f"{self.right} of {self.pkh} on {self.chain_id}"


def judge(key: MarkKey, stored: Mark | None, asked: Mark, max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP) -> Verdict:
    """Judge one request by the law.

    Args:
        key: Whose mark it is; only named in refusals.
        stored: The mark last allowed; None when there is none.
        asked: The mark of the message to be signed.
        max_level_jump: Levels, at least 0, by which `asked` may pass `stored`.

    Returns:
        ADVANCE: may be signed once `asked` is durably stored. REPEAT: may be signed; nothing is to be stored.

    Raises:
        WatermarkRejected: Never sign this message.
    """
    try:
        return judge_mark(stored, asked, max_level_jump)
    except MarkRefused as refused:
        advice = "; if the level is right, stop the host and use `enclave-host watermark raise`"
        raise WatermarkRejected(
            f"watermark validation failed: {key}: asked {asked}, stored {stored or 'nothing'}: {refused}"
            f"{advice if isinstance(refused, MarkTooFar) else ''}"
        ) from None
