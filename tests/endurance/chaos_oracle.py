"""Knows every request and every signature of a run, and what must never be among them. It shares no rule with the host.

- A signature verifies against the public key of the key that was asked, for the message that was asked.
- Of one place (key, chain, right, level, round) one message is signed; and no other one ever leaves the host.
- What was refused with 409 is never signed afterwards, and never leaves the host if that was its first answer.
- A message that was signed, and is asked for again before any other of its right, is not refused.
- At the end the mark of every signature is in the store.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from enclave_signer.curves import SignatureCheck, curve, verify_each
from enclave_signer.protocol.messages import SigningVersion
from enclave_signer.tezos import parse_consensus, parse_public_key, parse_signature
from tests.doubles.known_keys import KEYS, KnownKey

#: What a client may be answered; 0 stands for no answer at all.
EXPECTED = frozenset({0, 200, 409, 502, 503})
_CHECKERS = {
    key.pkh: curve(key.key_type).parse_public_key(parse_public_key(key.public_key).data) for key in KEYS.values()
}


class Right(NamedTuple):
    """What marks are kept for."""

    pkh: str
    chain: str
    right: str


#: A level and a round.
Height = tuple[int, int]


def place_of(pkh: str, message: bytes) -> tuple[Right, Height]:
    """Return what a message takes."""
    found = parse_consensus(message)
    return Right(pkh, found.chain_id, found.kind.right.value), (found.level, found.round)


@dataclass
class Oracle:
    """Use from any thread."""

    statuses: Counter[int] = field(default_factory=Counter)
    #: What must not happen, with how often it did.
    wrong: Counter[str] = field(default_factory=Counter)
    #: The first lines that say what happened.
    told: list[str] = field(default_factory=list)
    signed: dict[tuple[Right, Height], bytes] = field(default_factory=dict)
    _first: dict[bytes, int] = field(default_factory=dict)
    #: When a message was refused first.
    _refused: dict[bytes, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def blame(self, what: str, detail: str) -> None:
        """Note something that must not happen."""
        self.wrong[what] += 1
        if len(self.told) < 50:
            self.told.append(f"{what}: {detail}")

    def answered(
        self, key: KnownKey, message: bytes, status: int, signature: str, began: float, ended: float, *, repeat: bool
    ) -> None:
        """Judge an answer.

        Args:
            key: That was asked.
            message: That was asked for.
            status: Of the answer; 0: none came.
            signature: Of an answer 200.
            began: When it was asked, in seconds.
            ended: When it was answered.
            repeat: Whether it was signed just before, and nothing else of its right was asked for since.
        """
        right, height = place_of(key.pkh, message)
        with self._lock:
            self.statuses[status] += 1
            self._first.setdefault(message, status)
            if status == 409:
                self._refused.setdefault(message, ended)
            if status not in EXPECTED:
                self.blame("strange answer", f"{status} for {right} {height}")
            if repeat and status == 409:
                self.blame("repeat refused", f"{right} {height}")
        if status == 200:
            self._judge(key, right, height, message, signature, began)

    def _judge(self, key: KnownKey, right: Right, height: Height, message: bytes, signature: str, began: float) -> None:
        check = SignatureCheck(
            _CHECKERS[key.pkh], parse_signature(signature, key.key_type), message, SigningVersion.LATEST
        )
        (error,) = verify_each([check])
        with self._lock:
            if error is not None:
                self.blame("wrong signature", f"{right} {height}: {error}")
            if self.signed.setdefault((right, height), message) != message:
                self.blame("double signature", f"{right} {height}")
            if self._refused.get(message, began) < began:
                self.blame("signed though refused", f"{right} {height}")

    def left(self, pkh_of: Mapping[bytes, str], messages: Iterable[bytes]) -> None:
        """Judge all messages that left a host for the enclave; `pkh_of` says which key each was made for."""
        places: defaultdict[tuple[Right, Height], set[bytes]] = defaultdict(set)
        for message in messages:
            places[place_of(pkh_of[message], message)].add(message)
            if self._first.get(message) == 409:
                self.blame("left though refused", str(place_of(pkh_of[message], message)))
        for (right, height), several in places.items():
            if len(several) > 1:
                self.blame("two left the host", f"{right} {height}")

    def marked(self, marks: Mapping[Right, tuple[Height, str | None]]) -> None:
        """Compare all signatures with the marks that are stored: level and round, and the digest in hex, by right."""
        for (right, height), message in self.signed.items():
            stored, digest = marks.get(right, ((-1, -1), None))
            same = digest in (None, blake2b(message, digest_size=32).hexdigest())
            if stored < height or (stored == height and not same):
                self.blame("mark lost", f"{right} {height}, stored {stored}")
