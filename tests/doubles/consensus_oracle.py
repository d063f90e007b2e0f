"""What a baker signs, read a second time: by Octez' description of the encodings, sharing nothing with the parser under test.

Slow and plain on purpose: a cursor, one field after the other, and numbers that are written again to see that they are in their
shortest form.

Source: Octez `block_header_repr.ml`, `fitness_repr.ml`, `operation_repr.ml` of protocols 024 and 025.
"""

from functools import lru_cache
from typing import NamedTuple

import base58

from enclave_signer.tezos.protocols import MAX_DAL_BITSET_BYTES
from tests.doubles.operation_encoder import z


class Reading(NamedTuple):
    """What a message says, in the words of the policy."""

    kind: str
    chain_id: str
    level: int
    round: int


class NoMessage(Exception):
    """It is no message."""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, count: int) -> bytes:
        taken, self.rest = self.rest[:count], self.rest[count:]
        if len(taken) != count:
            raise NoMessage
        return taken

    def natural(self) -> int:
        number = int.from_bytes(self.take(4), "big", signed=True)
        if number < 0:
            raise NoMessage
        return number

    def part(self) -> "_Cursor":
        return _Cursor(self.take(int.from_bytes(self.take(4), "big")))

    def finish(self) -> None:
        if self.rest:
            raise NoMessage


@lru_cache(maxsize=64)
def _chain_id(raw: bytes) -> str:
    return base58.b58encode_check(b"\x57\x52\x00" + raw).decode()


def reading(message: bytes) -> Reading | None:
    """Return what a message says, or None where it is none."""
    cursor = _Cursor(message)
    try:
        magic = cursor.take(1)[0]
        chain = _chain_id(cursor.take(4))
        kind, level, round_ = _block(cursor) if magic == 0x11 else _vote(cursor, magic)
        cursor.finish()
    except NoMessage:
        return None
    return Reading(kind, chain, level, round_)


def _block(cursor: _Cursor) -> tuple[str, int, int]:
    level = cursor.natural()
    # proto, predecessor, timestamp, validation pass, operations hash
    cursor.take(1 + 32 + 8 + 1 + 32)
    fitness_level, round_ = _fitness(cursor.part())
    # context, payload hash
    cursor.take(32 + 32)
    cursor.natural()
    cursor.take(8)
    flag = cursor.take(1)
    if flag == b"\xff":
        cursor.take(32)
    elif flag != b"\x00":
        raise NoMessage
    cursor.take(1)
    if fitness_level != level:
        raise NoMessage
    return "block", level, round_


def _fitness(cursor: _Cursor) -> tuple[int, int]:
    version, level, locked, predecessor, round_ = (cursor.part() for _ in range(5))
    cursor.finish()
    if version.rest != b"\x02" or len(predecessor.rest) != 4:
        raise NoMessage
    if locked.rest:
        locked.natural()
    numbers = level.natural(), round_.natural()
    for part in (level, locked, round_):
        part.finish()
    return numbers


def _vote(cursor: _Cursor, magic: int) -> tuple[str, int, int]:
    cursor.take(32)
    tag = cursor.take(1)[0]
    kinds = {
        (0x12, 20): "preattestation",
        (0x12, 40): "preattestation",
        (0x13, 21): "attestation",
        (0x13, 23): "attestation_with_dal",
        (0x13, 41): "attestation",
    }
    if (magic, tag) not in kinds:
        raise NoMessage
    if tag < 40:
        cursor.take(2)
    level, round_ = cursor.natural(), cursor.natural()
    cursor.take(32)
    if tag == 23:
        _bitset(cursor)
    return kinds[magic, tag], level, round_


def _bitset(cursor: _Cursor) -> None:
    data = cursor.take(len(cursor.rest))
    if not 0 < len(data) <= MAX_DAL_BITSET_BYTES or data[0] & 0x40:
        raise NoMessage
    number = data[0] & 0x3F
    for place, byte in enumerate(data[1:]):
        number |= (byte & 0x7F) << (6 + 7 * place)
    if z(str(number)) != data:
        raise NoMessage
