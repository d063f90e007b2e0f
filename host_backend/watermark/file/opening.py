"""The content of a watermark file, and whether it is complete. Pure, but for the reading; nothing is written.

- Two whole copies whose sequences follow each other: the higher one counts, and the other is what it replaced.
- Anything else costs the right: the copy that is left may be older than what was signed.
- Nothing falls back unseen. A batch carries in `before` the sum over the newest copies of all slots, all of which were
  durable when it began. So without the records of the highest batch, whose slots are then counted by their other copy,
  the sum must be what that batch says. If it is not, a mark that was on the disk is older than it was.
- A damaged copy leaves its slot at the other's sequence, or at that plus 1: both are tried.
- Blocks behind the slots in use are free, unless one is a mark: then the headers have fallen back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Self

from host_backend.watermark.file.blocks import Blocks, read_block
from host_backend.watermark.file.layout import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    COPIES,
    HEADERS,
    SUM_MODULUS,
    Header,
    Record,
    file_bytes,
    header_offset,
    newer_format,
    pack_identity,
    parse_header,
    parse_record,
    parse_stray_record,
    slot_offset,
    slot_offsets,
    step,
    store_of,
)
from host_backend.watermark.rule import MarkKey

#: Damaged slots of which it is tried what their lost copies were: 2^12 sums take some milliseconds.
MAX_DAMAGED_SLOTS = 12
#: Bytes behind the slots in use: chunks are made as one burst of new rights needs them, and not given back.
MAX_SPARE_BYTES = 16 * CHUNK_BYTES


class Damage(Exception):
    """The file cannot be used as it is; the text says why."""


@dataclass(slots=True)
class Slot:
    """One slot, as it is in the file.

    Attributes:
        record: The record that counts.
        copies: What either copy says; None when that copy is damaged.
        identity: What both begin with.
        offsets: Where they lie, in bytes.
        step: What each of its records adds to the sum over all slots.
    """

    record: Record
    copies: list[Record | None]
    identity: bytes
    offsets: tuple[int, int]
    step: int

    @classmethod
    def of(cls, store_id: bytes, record: Record, copies: list[Record | None]) -> Self:
        """Return the slot of a store with these copies, of which one counts."""
        number = record.slot
        return cls(record, copies, pack_identity(store_id, number, record.key), slot_offsets(number), step(number))


@dataclass(slots=True)
class Image:
    """The content of the file.

    Attributes:
        store_id: The store's id.
        headers: What either header says; None when that one is damaged.
        slots: By number.
        batch: The highest batch; 0 when it was not looked for.
        total: The sum over all slots, by the records that count.
    """

    store_id: bytes
    headers: list[Header | None]
    slots: list[Slot] = field(default_factory=list)
    batch: int = 0
    total: int = 0


def read_image(file: Blocks, *, settled: bool = True) -> Image:
    """Read the whole file, block by block.

    Args:
        file: The file.
        settled: Whether no process writes to it meanwhile. Otherwise the sum means nothing and is not looked at.

    Raises:
        Damage: It is not a watermark store, or not all of what was in it is there.
        OSError: It cannot be looked at.
    """
    size = file.fstat().st_size
    image = _read_headers(file, size)
    count = max(header.slots for header in image.headers if header is not None)
    if size < file_bytes(count):
        raise Damage(f"it has {size} bytes where {count} slots need {file_bytes(count)}: its end is missing")
    if size > file_bytes(count) + MAX_SPARE_BYTES:
        raise Damage(f"it has {size} bytes, far more than {count} slots can need")
    image.slots = [_read_slot(file, image.store_id, number) for number in range(count)]
    _require_one_slot_per_right(image.slots)
    image.total = sum(slot.step * slot.record.sequence for slot in image.slots) % SUM_MODULUS
    if settled:
        _require_no_marks_behind(file, image.store_id, count, size)
        _require_nothing_fell_back(image)
    return image


def _read_headers(file: Blocks, size: int) -> Image:
    blocks = [read_block(file, header_offset(copy)) for copy in range(HEADERS)]
    parsed = [parse_header(block, copy) for copy, block in enumerate(blocks)]
    headers = [header for header in parsed if header is not None]
    if not headers:
        if newer := next(filter(None, map(newer_format, blocks)), None):
            raise Damage(f"it has format {newer}, of a later version of this program: use that one")
        raise Damage("it is empty" if not size else "neither of its two headers is whole")
    if len({header.store_id for header in headers}) != 1:
        raise Damage("its two headers are of two different stores")
    return Image(headers[0].store_id, parsed)


def _read_slot(file: Blocks, store_id: bytes, number: int) -> Slot:
    records = [
        parse_record(read_block(file, slot_offset(number, copy)), store_id, number, copy) for copy in range(COPIES)
    ]
    whole = [record for record in records if record is not None]
    if not whole:
        raise Damage(f"both copies of slot {number} are damaged, so it is not known which mark is lost")
    newest = max(whole, key=lambda record: record.sequence)
    if len(whole) == COPIES:
        older = min(whole, key=lambda record: record.sequence)
        if older.key != newest.key:
            raise Damage(f"the copies of slot {number} are of {older.key} and of {newest.key}")
        if newest.sequence != older.sequence + 1 or 0 < newest.batch <= older.batch:
            # What the older one has in its place may have been the newest.
            records[older.sequence % COPIES] = None
    return Slot.of(store_id, newest, records)


def _require_one_slot_per_right(slots: list[Slot]) -> None:
    seen: set[MarkKey] = set()
    for slot in slots:
        if slot.record.key in seen:
            raise Damage(f"two slots are of {slot.record.key}")
        seen.add(slot.record.key)


def _require_no_marks_behind(file: Blocks, store_id: bytes, count: int, size: int) -> None:
    for block in _blocks_behind(file, count, size):
        record = parse_stray_record(block)
        if record is not None and (record.mark or record.refused) and store_of(block) == store_id:
            raise Damage(
                f"there is a mark in slot {record.slot}, and both headers count {count} slots: they are too old"
            )


def _blocks_behind(file: Blocks, count: int, size: int) -> Iterator[bytes | None]:
    """Yield the blocks that belong to no header and no slot in use."""
    used = {offset for number in range(count) for offset in slot_offsets(number)}
    used |= {header_offset(copy) for copy in range(HEADERS)}
    for offset in range(0, size, BLOCK_BYTES):
        if offset not in used:
            yield read_block(file, offset)


def _require_nothing_fell_back(image: Image) -> None:
    written: list[Header | Record] = [header for header in image.headers if header is not None]
    written += [record for slot in image.slots for record in slot.copies if record is not None]
    image.batch = max(item.batch for item in written)
    befores = {item.before for item in written if item.batch == image.batch}
    if len(befores) != 1:
        raise Damage(f"what was written by batch {image.batch} does not belong together")
    (wanted,) = befores
    known, unknown = _counted_before(image)
    if len(unknown) > MAX_DAMAGED_SLOTS:
        raise Damage(f"{len(unknown)} slots are damaged, more than {MAX_DAMAGED_SLOTS}")
    if not any((known + sum(choice)) % SUM_MODULUS == wanted for choice in product(*unknown)):
        raise Damage("marks that were stored are missing: a part of the file is older than the rest")


def _counted_before(image: Image) -> tuple[int, list[tuple[int, int]]]:
    """Return the sum from before the highest batch: the certain part, and two summands for every other slot."""
    certain, either = 0, []
    for slot in image.slots:
        sequence = slot.record.sequence
        if slot.record.batch and slot.record.batch == image.batch:
            certain += slot.step * (sequence - 1)
        elif None in slot.copies:
            either.append((slot.step * sequence, slot.step * (sequence + 1)))
        else:
            certain += slot.step * sequence
    return certain, either
