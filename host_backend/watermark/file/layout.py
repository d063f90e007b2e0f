"""The bytes of the watermark file: two headers, then slots, each in two copies. Pure.

- A block has 4096 bytes, the unit in which disks and page caches write, and holds one header or one copy of a slot:
  a record, its checksum, zeros. Whatever differs from that is damage.
- The file is made of chunks. A chunk has two halves: a block for a header, which only the first chunk uses, and one copy
  of 256 slots. So the two headers, and the two copies of a slot, lie more than 1 MiB apart.
- A slot belongs to one right of one key on one chain, for ever. The record with the number `sequence` lies in copy
  `sequence % 2`, so that each one overwrites the older of its two predecessors.
- Numbers are big-endian. A checksum is the BLAKE2b-128 of everything before it.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from enclave_signer.tezos import Right
from host_backend.watermark.rule import Mark, MarkKey, in_range

#: The unit in which disks and page caches write: each copy of a mark has one of its own.
BLOCK_BYTES = 4096
HEADERS = COPIES = 2
#: Slots whose first copies lie together; makes 1 MiB, more than a disk writes or loses at once.
CHUNK_SLOTS = 256
HALF_CHUNK_BYTES = (1 + CHUNK_SLOTS) * BLOCK_BYTES
CHUNK_BYTES = COPIES * HALF_CHUNK_BYTES
STORE_ID_BYTES = 16
#: Slots of one file: more than 40 000 keys with all their rights; makes 1 GiB.
MAX_SLOTS = 1 << 17
#: Version of everything here.
FORMAT = 1

_CHECKSUM_BYTES = 16
_HEADER_MAGIC = b"EHWMARKS"
_SLOT_MAGIC = b"EHWSLOT\n"
# magic, format, copy, store id, slots, batch, before
_HEADER = Struct(">8sIB3x16sQQ16s")
# magic, store id, slot, chain, pkh, right: what every record of a slot begins with
_IDENTITY = Struct(">8s16sQ16s40sB")
# state, level, round, digest, sequence, batch, before
_STATE = Struct(">B2xII32sQQ16s")
_HEADER_BYTES = _HEADER.size + _CHECKSUM_BYTES
RECORD_BYTES = _IDENTITY.size + _STATE.size + _CHECKSUM_BYTES
_CHAIN_BYTES, _PKH_BYTES = 16, 40

_RIGHTS = tuple(Right)
#: Bits of a record's state.
_HAS_MARK, _HAS_DIGEST, _REFUSED = 1, 2, 4
_NO_DIGEST = bytes(32)
_ZEROS = bytes(BLOCK_BYTES)

_SUM_BYTES = 16
SUM_MODULUS = 1 << (8 * _SUM_BYTES)


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        copy: 0 or 1: where it lies.
        store_id: 16 random bytes that every block of one store has.
        slots: How many slots are in use.
        batch: Its number among the batches: a header is a batch without a record.
        before: `total` of all slots when the batch began.
    """

    copy: int
    store_id: bytes
    slots: int
    batch: int
    before: int


class Record(NamedTuple):
    """What a copy of a slot says.

    Attributes:
        slot: The number of its slot.
        key: Whose slot.
        mark: The mark; None when nothing was signed. Of a refused right, the highest that is known.
        refused: Whether the mark was damaged, so that nothing may be signed before it was raised.
        sequence: Its number among the records of the slot; the highest one counts.
        batch: The batch that wrote it; 0 before the first mark.
        before: As in `Header`.
    """

    slot: int
    key: MarkKey
    mark: Mark | None
    refused: bool
    sequence: int
    batch: int
    before: int


def step(slot: int) -> int:
    """Return what each record of a slot adds to the sum over all slots.

    It differs from slot to slot as if by chance, and is odd: whatever slots fall back, the sum becomes another one.
    """
    return int.from_bytes(blake2b(slot.to_bytes(8), digest_size=_SUM_BYTES).digest()) | 1


def total(newest: Iterable[tuple[int, int]]) -> int:
    """Return the sum over pairs of a slot and its newest sequence, as many times its step."""
    return sum(step(slot) * sequence for slot, sequence in newest) % SUM_MODULUS


def slot_offset(slot: int, copy: int) -> int:
    """Return where a copy of a slot lies, in bytes."""
    return slot_offsets(slot)[copy]


def slot_offsets(slot: int) -> tuple[int, int]:
    """Return where the two copies of a slot lie, in bytes."""
    chunk, index = divmod(slot, CHUNK_SLOTS)
    first = chunk * CHUNK_BYTES + (1 + index) * BLOCK_BYTES
    return first, first + HALF_CHUNK_BYTES


def header_offset(copy: int) -> int:
    """Return where a header lies, in bytes."""
    return copy * HALF_CHUNK_BYTES


def file_bytes(slots: int) -> int:
    """Return how long a file must be for so many slots, in bytes."""
    return max(1, -(-slots // CHUNK_SLOTS)) * CHUNK_BYTES


def block(packed: bytes) -> bytes:
    """Return the block that holds a packed header or record."""
    return packed.ljust(BLOCK_BYTES, b"\0")


def pack_header(header: Header) -> bytes:
    """Return the bytes of a header, its checksum included."""
    before = pack_before(header.before)
    return _sealed(
        _HEADER.pack(_HEADER_MAGIC, FORMAT, header.copy, header.store_id, header.slots, header.batch, before)
    )


def parse_header(data: bytes | None, copy: int) -> Header | None:
    """Return what a header block says; None when it is not whole, or not one for this place."""
    packed = _whole(data, _HEADER_MAGIC, _HEADER_BYTES)
    if packed is None:
        return None
    _, version, place, store_id, slots, batch, before = _HEADER.unpack_from(packed)
    if (version, place) != (FORMAT, copy):
        return None
    return Header(copy, store_id, slots, batch, int.from_bytes(before))


def newer_format(data: bytes | None) -> int | None:
    """Return the format of a header that a later version of this program wrote; None of anything else."""
    if data is None or not data.startswith(_HEADER_MAGIC):
        return None
    version = int.from_bytes(data[8:12])
    return version if version > FORMAT else None


def pack_identity(store_id: bytes, slot: int, key: MarkKey) -> bytes:
    """Return what every record of a slot begins with.

    Raises:
        ValueError: The key is none that a chain can have.
    """
    chain, pkh = _text(key.chain_id, _CHAIN_BYTES), _text(key.pkh, _PKH_BYTES)
    return _IDENTITY.pack(_SLOT_MAGIC, store_id, slot, chain, pkh, _RIGHTS.index(key.right))


def pack_before(before: int) -> bytes:
    """Return the bytes of a sum of slots, the same for all records of a batch."""
    return before.to_bytes(_SUM_BYTES)


def pack_record(identity: bytes, record: Record, before: bytes | None = None) -> bytes:
    """Return the bytes of a record, its checksum included.

    Args:
        identity: From `pack_identity`.
        record: What it says.
        before: Its sum, from `pack_before`, where that is at hand.

    Raises:
        ValueError: The mark is none that a chain can have.
    """
    mark = record.mark
    state = _REFUSED if record.refused else 0
    level = round_ = 0
    digest = _NO_DIGEST
    if mark is not None:
        state |= _HAS_MARK
        level, round_ = mark.level, mark.round
        if mark.digest is not None:
            state |= _HAS_DIGEST
            digest = mark.digest
            if len(digest) != len(_NO_DIGEST):
                raise ValueError(f"a digest of {len(digest)} bytes instead of {len(_NO_DIGEST)}")
    if before is None:
        before = pack_before(record.before)
    try:
        packed = identity + _STATE.pack(state, level, round_, digest, record.sequence, record.batch, before)
    except struct.error as error:
        raise ValueError(f"{record.key}: {error}") from error
    return packed + blake2b(packed, digest_size=_CHECKSUM_BYTES).digest()


def parse_record(data: bytes | None, store_id: bytes, slot: int, copy: int) -> Record | None:
    """Return what a copy of a slot says; None when it is not whole, or not of this store and place."""
    record = parse_stray_record(data)
    if record is None or (record.slot, record.sequence % COPIES) != (slot, copy) or store_of(data) != store_id:
        return None
    return record


def store_of(data: bytes | None) -> bytes:
    """Return the id of the store of a block that `parse_stray_record` took."""
    return b"" if data is None else data[8 : 8 + STORE_ID_BYTES]


def parse_stray_record(data: bytes | None) -> Record | None:
    """Return what a whole record says, wherever it was found; None of anything else."""
    packed = _whole(data, _SLOT_MAGIC, RECORD_BYTES)
    if packed is None:
        return None
    _, _, slot, chain, pkh, right = _IDENTITY.unpack_from(packed)
    state, level, round_, digest, sequence, batch, before = _STATE.unpack_from(packed, _IDENTITY.size)
    if right >= len(_RIGHTS) or state not in _STATES or not (chain + pkh).isascii():
        return None
    mark = None
    if state & _HAS_MARK:
        mark = Mark(level, round_, digest if state & _HAS_DIGEST else None)
        if not in_range(mark):
            return None
    key = MarkKey(chain.rstrip(b"\0").decode("ascii"), pkh.rstrip(b"\0").decode("ascii"), _RIGHTS[right])
    return Record(slot, key, mark, bool(state & _REFUSED), sequence, batch, int.from_bytes(before))


_STATES = frozenset({0, _HAS_MARK, _HAS_MARK | _HAS_DIGEST, _REFUSED, _REFUSED | _HAS_MARK})


def _text(text: str, size: int) -> bytes:
    data = text.encode("ascii")
    if len(data) > size:
        raise ValueError(f"{text!r}: longer than {size} characters")
    return data


def _sealed(packed: bytes) -> bytes:
    return packed + blake2b(packed, digest_size=_CHECKSUM_BYTES).digest()


def _whole(data: bytes | None, magic: bytes, size: int) -> bytes | None:
    """Return the packed bytes of a block whose checksum is right and whose rest is zero."""
    if data is None or not data.startswith(magic) or data[size:] != _ZEROS[size:]:
        return None
    packed = data[: size - _CHECKSUM_BYTES]
    return (
        packed if blake2b(packed, digest_size=_CHECKSUM_BYTES).digest() == data[size - _CHECKSUM_BYTES : size] else None
    )
