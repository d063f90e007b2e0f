"""The watermark law as stores apply it: whose mark it is, and the words of a refusal. Every store judges by `judge`.

The law itself is `enclave_signer.tezos.marks`: the enclave's guard goes by the same one. What a store adds is how many
chains it keeps marks on, as clients can make up as many as they like. Marks that are there are never given up for that.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from enclave_signer.tezos.consensus import Right
from enclave_signer.tezos.errors import MarkRefused, MarkTooFar
from enclave_signer.tezos.marks import (
    DEFAULT_MAX_LEVEL_JUMP,
    MAX_CHAINS_PER_KEY,
    MAX_LEVEL,
    MAX_ROUND,
    Mark,
    Verdict,
    in_range,
    is_above,
    judge_mark,
    merged,
)
from host_backend.errors import ConfigError, WatermarkRejected

__all__ = [
    "DEFAULT_MAX_LEVEL_JUMP",
    "MAX_CHAINS",
    "MAX_CHAINS_PER_KEY",
    "MAX_LEVEL",
    "MAX_ROUND",
    "Mark",
    "MarkKey",
    "MarkedChains",
    "Verdict",
    "all_damaged_text",
    "damaged_text",
    "in_range",
    "is_above",
    "judge",
    "merged",
    "require_in_range",
    "union",
]

#: Chains of all keys: each is a file for Signatory, looked at before every signature and written at every stop.
MAX_CHAINS = 64


class MarkKey(NamedTuple):
    """What a mark belongs to: chain (`Net…`), public-key hash (`tz…`) and right."""

    chain_id: str
    pkh: str
    right: Right

    def __str__(self) -> str:
        return f"{self.right} of {self.pkh} on {self.chain_id}"


class MarkedChains:
    """On which chains a store has marks: counted as they come, so that no request has to count them."""

    def __init__(self, keys: Iterable[MarkKey] = ()) -> None:
        self._all: set[str] = set()
        self._of_key: dict[str, set[str]] = {}
        for key in keys:
            self.add(key)

    def add(self, key: MarkKey) -> None:
        """Note the chain of a mark that the store has, or is about to write."""
        self._all.add(key.chain_id)
        self._of_key.setdefault(key.pkh, set()).add(key.chain_id)

    def obstacle(self, key: MarkKey) -> str | None:
        """Return why a key gets no mark on a chain where this right has none; None when it may."""
        of_key = self._of_key.get(key.pkh, set())
        if key.chain_id in of_key:
            return None
        if len(of_key) >= MAX_CHAINS_PER_KEY:
            return f"the key has marks on {len(of_key)} chains already, and gets none on another"
        if len(self._all) >= MAX_CHAINS and key.chain_id not in self._all:
            return f"there are marks on {len(self._all)} chains already, and none are kept on another"
        return None


def union(marks: Mapping[MarkKey, Mark], others: Mapping[MarkKey, Mark]) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right."""
    both = dict(marks)
    for key, mark in others.items():
        both[key] = merged(both.get(key), mark)
    return both


def require_in_range(mark: Mark) -> None:
    """Pass when a mark that an operator names is one that a chain can have.

    Raises:
        ConfigError: Its level or its round is out of range.
    """
    if not in_range(mark):
        raise ConfigError(f"{mark}: both must be from 0 to {MAX_LEVEL}")


def judge(
    key: MarkKey,
    stored: Mark | None,
    asked: Mark,
    max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP,
    chains: MarkedChains | None = None,
) -> Verdict:
    """Judge one request by the law.

    Args:
        key: Whose mark it is.
        stored: The mark last allowed; None when there is none.
        asked: The mark of the message to be signed.
        max_level_jump: Levels, at least 0, by which `asked` may pass `stored`.
        chains: Where the store has marks, those of the batch so far too; asked for a first mark only. None: as many
            chains as there are.

    Returns:
        ADVANCE: may be signed once `asked` is durably stored. REPEAT: may be signed; nothing is to be stored.

    Raises:
        WatermarkRejected: Never sign this message.
    """
    try:
        verdict = judge_mark(stored, asked, max_level_jump)
    except MarkTooFar as refused:
        advice = "if the level is right, stop the host and use `enclave-host watermark raise`"
        raise _refusal(key, stored, asked, f"{refused}; {advice}") from None
    except MarkRefused as refused:
        raise _refusal(key, stored, asked, str(refused)) from None
    if stored is None and chains is not None and (obstacle := chains.obstacle(key)):
        advice = (
            "write the chains that keys sign on into their `allowed_chains`; if this one is right, then stop the host "
            "and use `enclave-host watermark raise`"
        )
        raise _refusal(key, stored, asked, f"{obstacle}: {advice}")
    return verdict


def _refusal(key: MarkKey, stored: Mark | None, asked: Mark, why: str) -> WatermarkRejected:
    return WatermarkRejected(f"watermark validation failed: {key}: asked {asked}, stored {stored or 'nothing'}: {why}")


def all_damaged_text(refused: Mapping[MarkKey, Mark | None]) -> str:
    """Return which rights are refused for damage, and the way back, in one sentence."""
    names = [str(key) for key in refused]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"damaged marks: {', '.join(names[:3])}{more} (`enclave-host watermark show` names them all): stop the host and "
        "raise each above everything that may have been signed (`enclave-host watermark raise`)"
    )


def damaged_text(key: MarkKey, known: Mark | None, fault: str = "") -> str:
    """Return why a right is refused, and the way back.

    Args:
        key: Whose mark is damaged.
        known: The highest mark of the right that is known; None when none is.
        fault: What is wrong with the mark, where the store can say.
    """
    above = "" if known is None else f", and above level {known.level}"
    why = f"{fault}: " if fault else ""
    return (
        f"the mark for {key} is damaged, and nothing is signed for it: {why}stop the host and raise it above everything that "
        f"may have been signed{above} (`enclave-host watermark raise {key.chain_id} {key.pkh} {key.right} LEVEL`)"
    )
