"""Whether host and guard read consensus messages alike: `python -m tests.endurance.agreement N`.

Of N messages, mostly spoiled ones of the vectors, both must say the same: kind, chain, level and round, or a refusal. So
must two readings that share nothing with theirs: `consensus_oracle`, and the host's fields of evidence, in which votes and
block headers stand, too.

The messages are the same in every run.
"""

import json
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from enclave_signer.errors import GuardRefused
from enclave_signer.guard import Guard
from enclave_signer.protocol.messages import KeyType, PublicKey
from enclave_signer.tezos import CONSENSUS_MAGIC, ConsensusMessage
from enclave_signer.tezos.protocols import MAX_DAL_BITSET_BYTES
from host_backend.errors import MalformedRequest
from host_backend.operations.messages import parse_message
from tests.doubles.consensus_oracle import Reading, reading

SEED = 20260821
VECTORS = Path(__file__).parents[1] / "vectors"
#: Disagreements that are kept to be shown.
SHOWN = 20
_KEY = PublicKey(KeyType.ED25519, bytes(32))
_HEAD = b"\x03" + bytes(32)
_TAG_OFFSET = 37
#: Operations that evidence can hold, by the first byte that they have when signed alone.
_INLINED = {0x12: {20}, 0x13: {21, 23}}
_SIGNATURE_SIZES = (64, 96)
#: Octez has three votes on liquidity baking, and the host's evidence no other; what a baker signs may have any.
_VOTES = {0, 1, 2}
_EDGES = (0, 1, 2**31 - 1, -1, -(2**31))


def vectors() -> list[bytes]:
    """Return the consensus messages of the vectors, in their order."""
    protocols = json.loads((VECTORS / "protocols.json").read_text())["operations"]
    signatory = json.loads((VECTORS / "signatory-vectors.json").read_text())["payloads"]
    messages = [bytes.fromhex(item["hex"]) for item in (*protocols, *signatory)]
    return [message for message in messages if message[0] in CONSENSUS_MAGIC]


@dataclass
class Counts:
    """What was read, and what must never happen."""

    messages: int = 0
    refused: int = 0
    #: Kind of message to how many were read.
    read: Counter[str] = field(default_factory=Counter)
    #: How many were compared with the fields of evidence, too.
    in_evidence: int = 0
    disagreements: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'messages':<22}{self.messages:>9}", f"{'refused by all':<22}{self.refused:>9}"]
        lines += [f"{kind:<22}{count:>9}" for kind, count in sorted(self.read.items())]
        lines += [f"{'read in evidence, too':<22}{self.in_evidence:>9}"]
        return "\n".join([*lines, f"{'disagreements':<22}{len(self.disagreements):>9}", *self.disagreements[:SHOWN]])


def by_host(message: bytes) -> Reading | None:
    """Ask the host."""
    try:
        parsed = parse_message(message)
    except MalformedRequest:
        return None
    assert isinstance(parsed, ConsensusMessage)
    return Reading(parsed.kind.value, parsed.chain_id, parsed.level, parsed.round)


def by_guard(message: bytes) -> tuple[str, str, int, int] | None:
    """Ask a guard that has seen nothing yet; returns right, chain, level and round of the mark that moved."""
    guard = Guard(1, lambda _: None)
    try:
        guard.check(_KEY, message)
    except GuardRefused:
        return None
    ((chain_id, marks),) = guard._marks[_KEY].items()
    ((right, mark),) = marks.items()
    return right.value, chain_id, mark.level, mark.round


def _right(read: Reading) -> tuple[str, str, int, int]:
    return read.kind.removesuffix("_with_dal"), read.chain_id, read.level, read.round


def by_evidence(message: bytes) -> bool | None:
    """Tell whether evidence may hold a message; None where it never does.

    The held bytes end with a signature of either size, so that surplus bytes could pass for a part of the one or the other.
    """
    if message[0] == 0x11:
        if message[-1] not in _VOTES:
            return None
        return all(_accepted(b"\x03", message[5:], size) for size in _SIGNATURE_SIZES)
    if len(message) <= _TAG_OFFSET or message[_TAG_OFFSET] not in _INLINED[message[0]]:
        return None
    return all(_accepted(b"\x02\x00\x07", message[5:], size) for size in _SIGNATURE_SIZES)


def _accepted(head: bytes, held: bytes, signature_bytes: int) -> bool:
    part = (len(held) + signature_bytes).to_bytes(4, "big") + held + bytes(signature_bytes)
    try:
        parse_message(_HEAD + head + part + part)
    except MalformedRequest:
        return False
    return True


def compare(message: bytes, counts: Counts) -> None:
    """Ask all about one message that begins like a consensus message."""
    counts.messages += 1
    host, guard, oracle, evidence = by_host(message), by_guard(message), reading(message), by_evidence(message)
    if host is None:
        counts.refused += 1
    else:
        counts.read[host.kind] += 1
    counts.in_evidence += evidence is not None
    agreed = host == oracle and guard == (None if host is None else _right(host))
    if not agreed or evidence not in {None, host is not None}:
        counts.disagreements.append(
            f"{message.hex()}: host {host}, guard {guard}, oracle {oracle}, evidence {evidence}"
        )


def _number(chance: random.Random) -> bytes:
    number = chance.choice(_EDGES) if chance.random() < 0.2 else chance.getrandbits(31)
    return struct.pack(">i", number)


def _bitset(chance: random.Random) -> bytes:
    sizes = (chance.randint(1, 140), chance.randint(1, 8), MAX_DAL_BITSET_BYTES + chance.randint(-1, 1))
    size = chance.choices(sizes, (60, 30, 1))[0]
    body = bytes(byte | 0x80 for byte in chance.randbytes(size - 1)) + bytes([chance.getrandbits(7)])
    return bytes([body[0] & 0xBF]) + body[1:] if chance.random() < 0.9 else body


def _made_vote(chance: random.Random) -> bytes:
    magic, tag = chance.choice([(0x12, 20), (0x12, 40), (0x13, 21), (0x13, 23), (0x13, 23), (0x13, 41)])
    slot = b"" if tag >= 40 else chance.randbytes(2)
    head = bytes([magic]) + chance.randbytes(36) + bytes([tag]) + slot
    return head + _number(chance) + _number(chance) + chance.randbytes(32) + (_bitset(chance) if tag == 23 else b"")


def _made_block(chance: random.Random) -> bytes:
    level = _number(chance)
    locked = chance.choice([b"", _number(chance)])
    parts = (b"\x02", level, locked, chance.randbytes(4), _number(chance))
    fitness = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    head = b"\x11" + chance.randbytes(4) + level + chance.randbytes(74) + len(fitness).to_bytes(4, "big") + fitness
    seed = chance.choice([b"\x00", b"\xff" + chance.randbytes(32)])
    return (
        head
        + chance.randbytes(64)
        + _number(chance)
        + chance.randbytes(8)
        + seed
        + bytes([chance.choice((0, 1, 2, 9))])
    )


def _noise(chance: random.Random) -> bytes:
    magic = chance.choice(CONSENSUS_MAGIC)
    tag = bytes([chance.choice((20, 21, 23, 40, 41, chance.getrandbits(8)))])
    head = bytes([magic]) + chance.randbytes(36) + (b"" if magic == 0x11 else tag)
    return head[: chance.randint(1, len(head))] + chance.randbytes(chance.randint(0, 300))


def _spoiled(message: bytes, other: bytes, chance: random.Random) -> bytes:
    """Change, take out, put in, cut or splice; the first byte stays."""
    spoiled = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        start = chance.randint(1, len(spoiled))
        end = min(len(spoiled), start + chance.choice((0, 1, 1, 1, 4, 32)))
        match chance.randrange(6):
            case 0:
                del spoiled[start:end]
            case 1:
                spoiled[start:start] = chance.randbytes(chance.choice((1, 1, 4, 32)))
            case 2:
                spoiled[start:] = other[start:]
            case 3:
                del spoiled[start:]
            case _:
                edges = bytes(chance.choice((0x00, 0x01, 0x40, 0x7F, 0x80, 0xFF)) for _ in range(end - start))
                spoiled[start:end] = chance.choice((edges, chance.randbytes(end - start)))
    return bytes(spoiled)


def messages(count: int, seed: int = SEED) -> Iterator[bytes]:
    """Yield so many messages: a quarter made to be whole, a tenth at random, the others spoiled."""
    chance = random.Random(seed)
    known = vectors()
    makers: list[Callable[[random.Random], bytes]] = [_made_vote, _made_block]
    for _ in range(count):
        kind = chance.random()
        made = chance.choice(makers)(chance)
        if kind < 0.25:
            yield made
        elif kind < 0.35:
            yield _noise(chance)
        else:
            base = chance.choice((made, chance.choice(known), chance.choice(known)))
            yield _spoiled(base, chance.choice(known), chance)


def run(count: int) -> Counts:
    """Compare all vectors and so many other messages."""
    counts = Counts()
    for message in chain(vectors(), messages(count)):
        compare(message, counts)
    return counts


if __name__ == "__main__":
    outcome = run(int(sys.argv[1]))
    print(outcome)
    sys.exit(1 if outcome.disagreements else 0)
