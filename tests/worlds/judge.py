"""Whether a world was safe and came back to life. Knows what was asked and what was signed, and nothing of the product.

- Safe: of one key, chain and right no two messages of one level and round are ever signed, whether anyone gets the
  signature or not. No store that keeps what it has synced allows two, whatever enclaves would say to it.
- True: a released signature is that of the key and the message that were asked for. One request for a key makes no
  two keys.
- Alive: once nothing goes wrong any more, every right signs again.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple


class Meaning(NamedTuple):
    """What a message uses up: a right of a key on a chain, at a level and a round."""

    public_key: bytes
    chain: int
    right: str
    level: int
    round: int


@dataclass(slots=True)
class Judge:
    """The judge of one world.

    Attributes:
        wrong: What must never happen, and did.
        signatures: How many were made.
        released: How many were given to who asked.
    """

    wrong: list[str] = field(default_factory=list)
    signatures: int = 0
    released: int = 0
    _meanings: dict[tuple[bytes, bytes], Meaning] = field(default_factory=dict)
    _signed: dict[Meaning, bytes] = field(default_factory=dict)
    _allowed: dict[tuple[Hashable, ...], bytes] = field(default_factory=dict)

    def learn(self, message: bytes, meaning: Meaning) -> None:
        """Take note of what a message means, before it is asked for."""
        self._meanings[meaning.public_key, message] = meaning

    def made(self, public_key: bytes, message: bytes) -> None:
        """Judge a signature when an enclave makes it."""
        self.signatures += 1
        meaning = self._meanings.get((public_key, message))
        if meaning is None:
            self.wrong.append(f"a key signed what it was not asked for: {message.hex()[:16]}")
        elif self._signed.setdefault(meaning, message) != message:
            self.wrong.append(f"two messages were signed for one right: {_text(meaning)}")

    def allowed(self, place: tuple[Hashable, ...], digest: bytes) -> None:
        """Judge what a store allows to be signed: at one place (its right, its level and round) one digest."""
        if self._allowed.setdefault(place, digest) != digest:
            self.wrong.append(f"a store allowed two messages for one right: {place}")

    def given(self, meaning: Meaning, message: bytes, signature: bytes) -> None:
        """Judge a signature when a host releases it."""
        self.released += 1
        if signature != blake2b(message, key=meaning.public_key, digest_size=64).digest():
            self.wrong.append(f"what was released is no signature of the message: {_text(meaning)}")

    def keys_made(self, made: int, asked: int) -> None:
        """Judge how many keys were made."""
        if made > asked:
            self.wrong.append(f"{made} keys were made for {asked} requests")

    def silent(self, meaning: Meaning, why: object) -> None:
        """Take note of a right that does not sign although nothing is wrong any more."""
        self.wrong.append(f"does not sign again: {_text(meaning)}: {why}")


def _text(meaning: Meaning) -> str:
    return f"{meaning.right} of {meaning.public_key.hex()[:8]} at level {meaning.level} round {meaning.round}"
