"""The fields that Tezos operations are made of, as readers that move over the bytes of a message.

- A field is a function that takes a `Reader` and moves it over exactly one value, or raises `BadField`.
- Only the canonical form passes: shortest numbers, flags 00 and ff, zero padding, built-in entry points by their tag. A node that
  decodes and encodes again would not get the signed bytes back from any other form, and a policy could be misled by it.
- All lengths are checked against the remaining bytes before anything is read. Nothing recurses.

`parts` makes larger fields of these. Longer than most: many small readers that stand on each other.

Source: Octez `data-encoding` and the protocol's `operation_repr.ml`, `entrypoint_repr.ml`, `destination_repr.ml`, in which the
protocols 024 and 025 are alike.
"""

from collections.abc import Callable, Mapping
from typing import NoReturn

from enclave_signer.protocol.key_types import KeyType
from enclave_signer.tezos import PUBLIC_KEY_HASH_BYTES
from enclave_signer.tezos.protocols import MAX_ENTRY_POINT_BYTES, MAX_MICHELINE_DEPTH

#: Mutez, counters and limits are below 2**63 in Octez; ten groups of 7 bits hold 70.
AMOUNT_LIMIT_BYTES = 10
#: Script integers and ticket amounts have no bound of their own. Far above any constant in use, and small enough that
#: computing with one is fast.
BIG_NUMBER_LIMIT_BYTES = 4096
#: Entry points that have a tag of their own; the others follow tag 255 by name.
ENTRY_POINTS = (
    "default",
    "root",
    "do",
    "set_delegate",
    "remove_delegate",
    "deposit",
    "stake",
    "unstake",
    "finalize_unstake",
    "set_delegate_parameters",
)
_NAMED_ENTRY_POINT = 255

_PUBLIC_KEY_BYTES = {key_type.facts.tag: key_type.facts.public_key_bytes for key_type in KeyType}
_KNOWN_TAGS = f"{min(_PUBLIC_KEY_BYTES)} to {max(_PUBLIC_KEY_BYTES)}"
IMPLICIT_ACCOUNT = 0
ORIGINATED_CONTRACT = 1
SMART_ROLLUP = 3
ZK_ROLLUP = 4


class BadField(Exception):
    """A value is not what its field asks for.

    Attributes:
        offset: Where in the message it begins, in bytes.
    """

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(text)
        self.offset = offset


class Reader:
    """A place in a message.

    Attributes:
        data: The whole message.
        offset: The next byte to be read.
        limit: The end of the innermost length-prefixed part, or of the message.
        path: Names of the fields being read, outermost first; after an error it tells where it happened.
    """

    __slots__ = ("data", "limit", "offset", "path")

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.offset = offset
        self.limit = len(data)
        self.path: list[str] = []

    def at_end_of_message(self) -> bool:
        """Tell whether nothing at all follows."""
        return self.offset == len(self.data)

    def skip(self, count: int) -> int:
        """Move over `count` bytes; returns where they begin.

        Raises:
            BadField: Fewer are left.
        """
        start = self.offset
        if count > self.limit - start:
            raise BadField(f"{count} byte(s) needed, {self.limit - start} left", start)
        self.offset = start + count
        return start

    def byte(self) -> int:
        """Read one byte."""
        return self.data[self.skip(1)]

    def unsigned(self, size: int) -> int:
        """Read a big-endian unsigned integer of `size` bytes."""
        start = self.skip(size)
        return int.from_bytes(self.data[start : self.offset], "big")

    def enter(self) -> int:
        """Enter a part that begins with its 4-byte length; returns the limit to come back to with `leave`."""
        start = self.offset
        length = self.unsigned(4)
        outer = self.limit
        if length > outer - self.offset:
            raise BadField(f"a length of {length} bytes where {outer - self.offset} are left", start)
        self.limit = self.offset + length
        return outer

    def leave(self, outer: int) -> None:
        """Leave a part; nothing of it may be left over."""
        if self.offset != self.limit:
            raise BadField(f"{self.limit - self.offset} surplus byte(s)", self.offset)
        self.limit = outer

    def refuse(self, text: str, count: int = 1) -> NoReturn:
        """Complain about the last `count` bytes."""
        raise BadField(text, self.offset - count)


Field = Callable[[Reader], None]


def fixed(size: int) -> Field:
    """Make a field of `size` bytes of any content: a hash, a nonce."""

    def read(reader: Reader) -> None:
        reader.skip(size)

    return read


def not_negative_i32(reader: Reader) -> None:
    """Read a signed 4-byte integer of which only 0 and above make sense: a level, a voting period."""
    if reader.unsigned(4) >= 1 << 31:
        reader.refuse("negative number", 4)


def choice(labels: Mapping[int, str]) -> Field:
    """Make a field of one byte that has names for its values; others are refused."""

    def read(reader: Reader) -> None:
        value = reader.byte()
        if value not in labels:
            known = ", ".join(f"{number} {label}" for number, label in labels.items())
            reader.refuse(f"unknown value {value}; known are {known}")

    return read


def natural(limit_bytes: int) -> Field:
    """Make a field for N: 7 bits per byte, least significant first, 0x80 says that more follow."""

    def read(reader: Reader) -> None:
        _number(reader, reader.byte(), limit_bytes)

    return read


def integer(limit_bytes: int) -> Field:
    """Make a field for Z: like N, but the first byte has the sign in 0x40 and 6 bits."""

    def read(reader: Reader) -> None:
        first = reader.byte()
        if first == 0x40:
            reader.refuse("zero with a minus sign")
        _number(reader, first, limit_bytes)

    return read


def not_negative_integer(limit_bytes: int) -> Field:
    """Make a field for Z of which only 0 and above make sense: a set of bits."""

    def read(reader: Reader) -> None:
        first = reader.byte()
        if first & 0x40:
            reader.refuse("negative number")
        _number(reader, first, limit_bytes)

    return read


def _number(reader: Reader, first: int, limit_bytes: int) -> None:
    """Move over the rest of an N or a Z."""
    last, size = first, 1
    while last & 0x80:
        last = reader.byte()
        size += 1
        if size > limit_bytes:
            reader.refuse(f"number longer than {limit_bytes} bytes", size)
    if size > 1 and last == 0:
        reader.refuse("number not in its shortest form", size)


amount = natural(AMOUNT_LIMIT_BYTES)
big_natural = natural(BIG_NUMBER_LIMIT_BYTES)
big_integer = integer(BIG_NUMBER_LIMIT_BYTES)


def public_key_hash(reader: Reader) -> None:
    """Read the curve's tag and 20 bytes."""
    tag = reader.byte()
    if tag not in _PUBLIC_KEY_BYTES:
        reader.refuse(f"unknown public key hash tag {tag}; known are {_KNOWN_TAGS}")
    reader.skip(PUBLIC_KEY_HASH_BYTES)


def public_key(reader: Reader) -> None:
    """Read the curve's tag and the key; the point is not checked."""
    tag = reader.byte()
    size = _PUBLIC_KEY_BYTES.get(tag)
    if size is None:
        reader.refuse(f"unknown public key tag {tag}; known are {_KNOWN_TAGS}")
    reader.skip(size)


def account(*tags: int) -> Field:
    """Make a field for an address of 22 bytes.

    Args:
        tags: Which of `IMPLICIT_ACCOUNT`, `ORIGINATED_CONTRACT`, `SMART_ROLLUP` and `ZK_ROLLUP` may stand here.
    """

    def read(reader: Reader) -> None:
        tag = reader.byte()
        if tag not in tags:
            reader.refuse(f"unknown address tag {tag}; known here: {', '.join(map(str, tags))}")
        if tag == IMPLICIT_ACCOUNT:
            public_key_hash(reader)
            return
        reader.skip(PUBLIC_KEY_HASH_BYTES)
        if reader.byte() != 0:
            reader.refuse("the padding byte after the address is not zero")

    return read


def optional(field: Field) -> Field:
    """Make a field that a flag says to be there (ff) or not (00)."""

    def read(reader: Reader) -> None:
        flag = reader.byte()
        if flag == 0xFF:
            field(reader)
        elif flag != 0x00:
            reader.refuse(f"flag 0x{flag:02x}; expected 00 or ff")

    return read


def optional_of_late(field: Field) -> Field:
    """Make an optional field that earlier protocols did not have: at the very end of the message its flag may be missing.

    Anywhere else the bytes of an earlier protocol look like those of this one.
    """
    flagged = optional(field)

    def read(reader: Reader) -> None:
        if not reader.at_end_of_message():
            flagged(reader)

    return read


def dynamic(field: Field) -> Field:
    """Make a field that fills a length-prefixed part exactly."""

    def read(reader: Reader) -> None:
        outer = reader.enter()
        field(reader)
        reader.leave(outer)

    return read


def dynamic_bytes(reader: Reader) -> None:
    """Read length-prefixed bytes of any content."""
    reader.skip(reader.unsigned(4))


def limited_bytes(limit_bytes: int, length_bytes: int = 4) -> Field:
    """Make a field of at most `limit_bytes` bytes of any content, after their number in `length_bytes` bytes."""

    def read(reader: Reader) -> None:
        length = reader.unsigned(length_bytes)
        if length > limit_bytes:
            reader.refuse(f"a length of {length} bytes; at most {limit_bytes} are allowed", length_bytes)
        reader.skip(length)

    return read


def many(field: Field, limit: int | None = None) -> Field:
    """Make a field that repeats another, at most `limit` times, until a length-prefixed part ends."""

    def read(reader: Reader) -> None:
        outer = reader.enter()
        count = 0
        while reader.offset < reader.limit:
            if count == limit:
                reader.refuse(f"more than {limit} items", 0)
            field(reader)
            count += 1
        reader.leave(outer)

    return read


def record(*fields: tuple[str, Field]) -> Field:
    """Make a field of several named ones."""

    def read(reader: Reader) -> None:
        for name, field in fields:
            reader.path.append(name)
            field(reader)
            reader.path.pop()

    return read


def entry_point(reader: Reader) -> None:
    """Read an entry point: a tag, or 255, one byte of length and a name.

    Octez takes a built-in name after 255 for the built-in itself, and the empty name for `default`. Refusing both keeps a policy
    that forbids `stake` from being talked round by spelling it out.
    """
    tag = reader.byte()
    if tag < len(ENTRY_POINTS):
        return
    if tag != _NAMED_ENTRY_POINT:
        reader.refuse(f"unknown entry point tag {tag}; known are 0 to {len(ENTRY_POINTS) - 1} and {_NAMED_ENTRY_POINT}")
    length = reader.byte()
    if not 1 <= length <= MAX_ENTRY_POINT_BYTES:
        reader.refuse(f"an entry point's name of {length} bytes; it has 1 to {MAX_ENTRY_POINT_BYTES}")
    start = reader.skip(length)
    name = reader.data[start : reader.offset].decode("latin-1")
    if name in ENTRY_POINTS:
        reader.refuse(f"the entry point {name} spelled out; it has the tag {ENTRY_POINTS.index(name)}", length)


# Micheline is read with a list of steps still to come instead of recursion: (step, depth or limit to come back to).
_NODE, _SEQUENCE, _ANNOTATIONS = range(3)
_Step = tuple[int, int, int]
# Tag to number of arguments and whether annotations follow.
_PRIMITIVES = {3: (0, False), 4: (0, True), 5: (1, False), 6: (1, True), 7: (2, False), 8: (2, True)}
_MICHELINE_INT, _MICHELINE_STRING, _MICHELINE_SEQUENCE, _MICHELINE_GENERIC, _MICHELINE_BYTES = 0, 1, 2, 9, 10


def micheline(reader: Reader) -> None:
    """Read one Micheline expression: its shape only, so that primitives of later protocols pass."""
    steps: list[_Step] = [(_NODE, 1, 0)]
    while steps:
        step, depth, outer = steps.pop()
        if step == _NODE:
            _micheline_node(reader, steps, depth)
        elif step == _ANNOTATIONS:
            dynamic_bytes(reader)
        elif reader.offset < reader.limit:
            steps += (_SEQUENCE, depth, outer), (_NODE, depth, 0)
        else:
            reader.leave(outer)


def _micheline_node(reader: Reader, steps: list[_Step], depth: int) -> None:
    """Read a node up to its children; adds the steps that finish it, last one first."""
    tag = reader.byte()
    if depth > MAX_MICHELINE_DEPTH:
        reader.refuse(f"expression nested deeper than {MAX_MICHELINE_DEPTH} levels")
    if tag == _MICHELINE_INT:
        big_integer(reader)
    elif tag in {_MICHELINE_STRING, _MICHELINE_BYTES}:
        dynamic_bytes(reader)
    elif tag == _MICHELINE_SEQUENCE:
        steps.append((_SEQUENCE, depth + 1, reader.enter()))
    elif tag == _MICHELINE_GENERIC:
        reader.skip(1)
        steps += (_ANNOTATIONS, 0, 0), (_SEQUENCE, depth + 1, reader.enter())
    elif tag in _PRIMITIVES:
        arguments, annotated = _PRIMITIVES[tag]
        reader.skip(1)
        if annotated:
            steps.append((_ANNOTATIONS, 0, 0))
        steps += [(_NODE, depth + 1, 0)] * arguments
    else:
        reader.refuse(f"unknown Micheline tag {tag}; known are 0 to 10")


script = dynamic(micheline)
