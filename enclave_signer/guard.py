"""What this process has already signed: the last word against a double signature, for all clients.

- One guard per process, in memory, for all sessions and for `SignWith`: per public key, chain and right, the highest
  consensus message allowed, judged by the same law as the host's watermark (`enclave_signer.tezos.marks`).
- The mark moves before the signature is made, in the order of the calls: of two messages for one right one is signed.
- The same message again is allowed. A mark has no signing version: a BLS key may sign one message under both, and never
  a second message under the other.
- What begins like a consensus message and is not exactly one is refused: the guard does not guess.
- A key of a curve that does not bake signs none at all, whether there is a guard or not.
- Nothing is ever forgotten while the process lives. A full guard refuses what it has no room for. A key has room for
  all its rights on a chain from its first message there on, so that one that attests can also make its block.
- A key has room on `MAX_CHAINS_PER_KEY` chains: anyone can invent chains, and one key must not take the room of all others.
- A restart forgets everything: then the host's watermark stands alone.
"""

from collections.abc import Callable

from enclave_signer.errors import GuardRefused
from enclave_signer.protocol.errors import Family
from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import (
    CONSENSUS_MAGIC,
    MAX_CHAINS_PER_KEY,
    ConsensusMessage,
    MalformedMessage,
    Mark,
    MarkRefused,
    MarkTooFar,
    Right,
    Verdict,
    judge_mark,
    mark_of,
    parse_consensus,
    public_key_hash,
)


def check_without_guard(public_key: PublicKey, message: bytes) -> None:
    """Return when a key may sign a message where no guard is asked.

    Raises:
        GuardRefused: A consensus message, and a key of a curve that does not bake.
    """
    if not public_key.key_type.facts.bakes and message[:1] and message[0] in CONSENSUS_MAGIC:
        raise GuardRefused(f"{Family.GUARD_REFUSED}: {_never_bakes(public_key)}")


def _never_bakes(public_key: PublicKey) -> str:
    return f"{public_key_hash(public_key)} signs no blocks, preattestations and attestations: no {public_key.key_type} key bakes"


class Guard:
    """Allows each key one message per right.

    Args:
        limit: Pairs of a key and a chain, each with the marks of all its rights.
        on_refusal: Called with the text of every refusal.
    """

    __slots__ = ("_limit", "_marks", "_on_refusal", "_pairs", "refused")

    def __init__(self, limit: int, on_refusal: Callable[[str], None]) -> None:
        self._limit = limit
        self._on_refusal = on_refusal
        self._marks: dict[PublicKey, dict[str, dict[Right, Mark]]] = {}
        self._pairs = 0
        #: Messages refused since the process began.
        self.refused = 0

    def check(self, public_key: PublicKey, message: bytes) -> None:
        """Return when a key may sign a message; nothing else may be signed for that right from then on.

        Raises:
            GuardRefused: Never sign this message with this key.
        """
        if not message or message[0] not in CONSENSUS_MAGIC:
            return
        if not public_key.key_type.facts.bakes:
            raise self._refusal(_never_bakes(public_key))
        try:
            asked = parse_consensus(message)
        except MalformedMessage as error:
            raise self._refusal(
                f"the message for {public_key_hash(public_key)} begins like a consensus message and is not one: {error}"
            ) from None
        self._advance(public_key, asked, mark_of(asked, message))

    def _advance(self, public_key: PublicKey, asked: ConsensusMessage, mark: Mark) -> None:
        chains = self._marks.get(public_key)
        marks = None if chains is None else chains.get(asked.chain_id)
        right = asked.kind.right
        stored = None if marks is None else marks.get(right)
        try:
            verdict = judge_mark(stored, mark)
        except MarkRefused as refused:
            advice = "; if the level is right, restart the enclave" if isinstance(refused, MarkTooFar) else ""
            raise self._refusal(
                f"{right} of {public_key_hash(public_key)} on {asked.chain_id}: asked {mark}, this enclave has signed "
                f"{stored}: {refused}{advice}"
            ) from None
        if verdict is Verdict.REPEAT:
            return
        if marks is None:
            marks = self._make_room(public_key, asked.chain_id)
        marks[right] = mark

    def _make_room(self, public_key: PublicKey, chain_id: str) -> dict[Right, Mark]:
        chains = self._marks.get(public_key, {})
        newcomer = f"{public_key_hash(public_key)} has signed nothing on {chain_id} yet, and"
        if len(chains) >= MAX_CHAINS_PER_KEY:
            raise self._refusal(
                f"{newcomer} on {len(chains)} other chains, the most that one key may: find out who asked for so many, "
                "then restart the enclave"
            )
        if self._pairs >= self._limit:
            raise self._refusal(
                f"{newcomer} the guard is full with {self._limit} keys: find out who made so many, then restart the "
                "enclave"
            )
        self._pairs += 1
        return self._marks.setdefault(public_key, {}).setdefault(chain_id, {})

    def _refusal(self, reason: str) -> GuardRefused:
        self.refused += 1
        text = f"{Family.GUARD_REFUSED}: {reason}"
        self._on_refusal(text)
        return GuardRefused(text)
