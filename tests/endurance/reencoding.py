"""Whether what the host reads as operations has one spelling: `python -m tests.endurance.reencoding N`.

N messages, mostly spoiled ones of the vectors, are read by the host. What it reads, another decoder must read, too, by the
same names; and written again by an encoder that shares nothing with either, it must have the same bytes.

The messages are the same in every run.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from host_backend.errors import MalformedRequest
from host_backend.operations.messages import GenericMessage, parse_message
from tests.doubles import operation_decoder, operation_encoder

SEED = 20260821
VECTORS = Path(__file__).parents[1] / "vectors"
#: Messages that are shown of those that must not be.
SHOWN = 20
#: Options that earlier protocols did not have: without their flag at the very end of a message, as those wrote it.
_LATE_OPTIONS = frozenset({"reveal", "update_consensus_key"})
_BYTES = (0, 1, 3, 4, 5, 0x3F, 0x40, 0x7F, 0x80, 0xFF)


def vectors() -> list[bytes]:
    """Return the generic messages of the vectors, in their order."""
    found = []
    for name, member in (
        ("protocols.json", "operations"),
        ("operations.json", "made"),
        ("operations.json", "recorded"),
    ):
        found += [item["hex"] for item in json.loads((VECTORS / name).read_text()).get(member, ()) if "hex" in item]
    return [message for message in map(bytes.fromhex, found) if message[:1] == b"\x03"]


@dataclass
class Counts:
    """What was read, and what must never happen."""

    messages: int = 0
    refused: int = 0
    #: Names of operations to how many were read.
    read: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{'messages':<40}{self.messages:>9}", f"{'refused':<40}{self.refused:>9}"]
        lines += [f"{name:<40}{count:>9}" for name, count in sorted(self.read.items())]
        return "\n".join([*lines, f"{'faults':<40}{len(self.faults):>9}", *self.faults[:SHOWN]])


def messages(count: int) -> Iterator[bytes]:
    """Yield the vectors, then `count` spoiled ones."""
    originals = vectors()
    yield from originals
    generator = random.Random(SEED)
    for _ in range(count):
        yield spoiled(generator, originals)


def spoiled(generator: random.Random, originals: list[bytes]) -> bytes:
    """Return a message with one to three changes, each of a kind that a decoder may be careless about."""
    data = bytearray(generator.choice(originals))
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        # The tags, numbers and flags stand at the beginning of operations; large parts of the rest mean nothing.
        at = min(generator.randrange(33, len(data) + 1), generator.randrange(33, len(data) + 1), len(data) - 1)
        match generator.randrange(7):
            case 0:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                data[at] = generator.choice(_BYTES)
            case 2:
                data[at:at] = bytes([generator.choice(_BYTES)])
            case 3:
                del data[at]
            case 4:
                # A number in a longer form.
                data[at : at + 1] = bytes([data[at] | 0x80, 0])
            case 5:
                other = generator.choice(originals)
                data[at:] = other[generator.randrange(33, len(other)) :]
            case 6:
                data += generator.choice(originals)[33:]
        if len(data) < 34:
            break
    return bytes(data)


def check(message: bytes, counts: Counts) -> None:
    """Read one message, and write it again."""
    counts.messages += 1
    try:
        parsed = parse_message(message)
    except MalformedRequest:
        counts.refused += 1
        return
    if not isinstance(parsed, GenericMessage):
        counts.faults.append(f"not read as operations: {message.hex()}")
        return
    counts.read.update(parsed.operations)
    try:
        branch, contents = operation_decoder.message(message)
        written = operation_encoder.message(branch, contents)
    except (operation_decoder.Unreadable, KeyError, ValueError, UnicodeError) as error:
        counts.faults.append(f"unreadable ({error!r}): {message.hex()}")
        return
    late = contents[-1]["kind"] in _LATE_OPTIONS and written == message + b"\0"
    if written != message and not late:
        counts.faults.append(f"written again as {written.hex()}: {message.hex()}")
    if len(contents) != len(parsed.operations):
        counts.faults.append(f"{len(contents)} operations and not {len(parsed.operations)}: {message.hex()}")


def run(count: int) -> Counts:
    """Check the vectors and `count` spoiled messages."""
    counts = Counts()
    for message in messages(count):
        check(message, counts)
    return counts


if __name__ == "__main__":
    counted = run(int(sys.argv[1]))
    print(counted)
    sys.exit(bool(counted.faults))
