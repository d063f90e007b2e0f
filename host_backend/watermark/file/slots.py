"""The marks of an open watermark file, and how they are written. Synchronous; one thread has it.

- A batch writes one record per right over the older copy of its slot, then syncs once. The newer copy, which is
  durable, is never touched.
- After any error of a batch nothing is known of it: the same bytes are written again in the same places, and synced,
  before anything else is written or judged (`settle`). Marks that moved so without a signature stay.
- A slot is given in two steps, before its first mark: both copies with the right's identity and no mark, synced; then
  both headers, one after the other, with the new count.
- Before an opened file is used, what may be in memory alone is made durable, byte for byte in its own place; and every
  damaged copy is replaced by a record that refuses the right, so that a restart does not forget it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from host_backend.errors import reason_of
from host_backend.watermark.file.blocks import Blocks
from host_backend.watermark.file.commits import Commits, Write
from host_backend.watermark.file.layout import (
    BLOCK_BYTES,
    CHUNK_SLOTS,
    COPIES,
    HEADERS,
    MAX_SLOTS,
    SUM_MODULUS,
    Header,
    Record,
    file_bytes,
    header_offset,
    pack_before,
    pack_header,
    pack_record,
)
from host_backend.watermark.file.opening import Image, Slot
from host_backend.watermark.rule import Mark, MarkKey, merged

#: Slots to keep free in the file, so that a new right rarely has to wait until the file has grown.
SPARE_SLOTS = 64
#: Zeros written at once when the file grows.
_GROWTH_BYTES = 64 * BLOCK_BYTES


class NoSlot(Exception):
    """The file could not grow, or no slot could be given: those rights alone get no mark now; the text says why."""


class SlotFile:
    """A watermark file that is open for writing.

    Attributes:
        commits: What was written last, and whether that is in doubt.
        marks: The mark of every right that has one and is not refused.
        refused: Rights whose mark was damaged, and the highest mark of theirs that is known.
    """

    def __init__(self, file: Blocks, image: Image) -> None:
        self.commits = Commits(file)
        self._store_id = image.store_id
        self._headers = image.headers
        self._slots = image.slots
        self._batch = image.batch
        self._total = image.total
        self._numbers: dict[MarkKey, int] = {}
        self.marks: dict[MarkKey, Mark] = {}
        self.refused: dict[MarkKey, Mark | None] = {}
        for number, slot in enumerate(self._slots):
            self._note(number, slot.record)
        self._sealed = False
        # Up to where the file is made of blocks that were written and synced.
        self._grown_bytes = file_bytes(len(self._slots))
        # For how many slots it was tried to make room ahead of need.
        self._tried_slots = 0

    def begin(self) -> None:
        """Make durable what was read, and refuse damaged rights; call once, before anything else is written.

        Raises:
            OSError: Not done; open the file again.
        """
        last = [slot for slot in self._slots if slot.record.batch and slot.record.batch == self._batch]
        if last:
            self.commits.commit([self._copy(slot, slot.record) for slot in last])
        # Before a header: that would say that the damaged copy was as old as the one that is left.
        if damaged := [slot for slot in self._slots if None in slot.copies]:
            known = [_without_digest(slot.record.mark) for slot in damaged]
            self._write_records(damaged, known, refused=True)
        self.seal()

    def learn(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Note the marks of others as the known ones of refused rights; only a person mends them."""
        for key in self.refused.keys() & marks.keys():
            self.refused[key] = merged(self.refused[key], marks[key])

    def keep_known(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Do as `learn`, and store everything known now; durable when this returns.

        Raises:
            OSError: In doubt; see `Commits.settle`.
        """
        known = {key: merged(self.refused[key], marks[key]) for key in self.refused.keys() & marks.keys()}
        changed = {key: mark for key, mark in known.items() if mark != self.refused[key]}
        if changed:
            self.commits.settle()
            self._level_headers()
            over = [self._slots[self._numbers[key]] for key in changed]
            self._write_records(over, [_without_digest(mark) for mark in changed.values()], refused=True)

    # Reading

    @property
    def keys(self) -> Iterator[MarkKey]:
        """Every right that has a slot, also those without a mark."""
        return iter(self._numbers)

    def has_slot(self, key: MarkKey) -> bool:
        """Tell whether a right has a slot, with a mark or without."""
        return key in self._numbers

    def is_as_written(self) -> bool:
        """Read the whole file again, and tell whether every block in use is what was written.

        Raises:
            OSError: It cannot be looked at.
        """
        return self.commits.is_as_written(self._all_blocks())

    def _all_blocks(self) -> Iterator[Write]:
        for copy, header in enumerate(self._headers):
            if header is not None:
                yield pack_header(header), header_offset(copy)
        for slot in self._slots:
            for record in slot.copies:
                if record is not None:
                    yield self._copy(slot, record)

    # Giving slots

    def give(self, keys: Sequence[MarkKey]) -> None:
        """Give a slot to every right that has none; all of them have one when this returns.

        Raises:
            NoSlot: Not all of them got one; everything else is as before.
            OSError: In doubt; see `Commits.settle`.
        """
        self.commits.settle()
        new = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        # In portions, each counted: what a crash leaves behind the slots in use is never more than one chunk.
        for start in range(0, len(new), CHUNK_SLOTS):
            self._give(new[start : start + CHUNK_SLOTS])

    def _give(self, keys: Sequence[MarkKey]) -> None:
        first = len(self._slots)
        if first + len(keys) > MAX_SLOTS:
            raise NoSlot(f"it has {first} slots, and {MAX_SLOTS} at most")
        try:
            given = [self._new_slot(number, key) for number, key in enumerate(keys, first)]
            self._grow(first + len(keys))
            self.commits.write_synced([self._copy(slot, record) for slot in given for record in slot.copies if record])
        except (OSError, ValueError) as error:
            # Behind the slots in use nothing counts, and the next one to be given writes over it.
            raise NoSlot(reason_of(error) if isinstance(error, OSError) else str(error)) from error
        self._count(given)

    def _new_slot(self, number: int, key: MarkKey) -> Slot:
        copies = [Record(number, key, None, refused=False, sequence=n, batch=0, before=0) for n in range(COPIES)]
        return Slot.of(self._store_id, copies[-1], [*copies])

    def _count(self, given: list[Slot]) -> None:
        total = (self._total + sum(slot.step * slot.record.sequence for slot in given)) % SUM_MODULUS

        def take() -> None:
            self._total = total
            for slot in given:
                self._slots.append(slot)
                self._note(slot.record.slot, slot.record)

        # One is durable before the other is begun, by `write`, and both before a mark stands in a new slot.
        self._write_header(
            Header(self._turn(), self._store_id, len(self._slots) + len(given), self._batch + 1, total), take
        )

    def _level_headers(self) -> None:
        """Bring both headers to the present count: a mark that only one of them counts could be lost with it."""
        for copy, header in enumerate(self._headers):
            if header is None or header.slots != len(self._slots):
                self._write_header(self._header(copy))

    def _grow(self, slots: int) -> None:
        wanted = file_bytes(slots)
        if self._grown_bytes < wanted:
            # Written, not only reserved: a block that is there is written later without asking for room.
            offsets = range(self._grown_bytes, wanted, _GROWTH_BYTES)
            self.commits.write_synced((bytes(min(_GROWTH_BYTES, wanted - offset)), offset) for offset in offsets)
            self._grown_bytes = wanted

    def grow_ahead(self) -> None:
        """Ensure that some slots are free; call it when no request waits. Tried once until slots are given.

        Raises:
            OSError: There is no room for more.
        """
        wanted = len(self._slots) + SPARE_SLOTS
        if self._tried_slots < wanted:
            self._tried_slots = wanted
            self._grow(wanted)

    # Writing marks

    def write(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Store marks, whatever was there; durable when this returns. All of them have slots.

        A right that was refused is so no more: only who has compared may write it.

        Raises:
            OSError: In doubt; see `Commits.settle`.
            ValueError: A mark is none that a chain can have; nothing was written.
        """
        self.commits.settle()
        self._level_headers()
        self._write_records([self._slots[self._numbers[key]] for key in marks], list(marks.values()))

    def _write_records(self, over: Sequence[Slot], marks: Sequence[Mark | None], *, refused: bool = False) -> None:
        """Write the next record of slots: with a mark, or refusing, with the mark that is known."""
        batch, before = self._batch + 1, self._total
        records = [
            Record(slot.record.slot, slot.record.key, mark, refused, slot.record.sequence + 1, batch, before)
            for slot, mark in zip(over, marks, strict=True)
        ]
        packed_before = pack_before(before)
        writes = [
            (pack_record(slot.identity, record, packed_before), slot.offsets[record.sequence % COPIES])
            for slot, record in zip(over, records, strict=True)
        ]
        self.commits.commit(writes, partial(self._take, batch, over, records))

    def _take(self, batch: int, over: Sequence[Slot], records: Sequence[Record]) -> None:
        self._batch, self._sealed = batch, False
        total, in_order = self._total, not self.refused
        for slot, record in zip(over, records, strict=True):
            total += slot.step
            slot.record = slot.copies[record.sequence % COPIES] = record
            if in_order and not record.refused and record.mark is not None:
                self.marks[record.key] = record.mark
            else:
                self._note_mark(record)
        self._total = total % SUM_MODULUS

    def _note(self, number: int, record: Record) -> None:
        self._numbers[record.key] = number
        self._note_mark(record)

    def _note_mark(self, record: Record) -> None:
        if record.refused:
            self.refused[record.key] = record.mark
            self.marks.pop(record.key, None)
        elif record.mark is not None:
            self.marks[record.key] = record.mark
            if self.refused:
                self.refused.pop(record.key, None)

    def _copy(self, slot: Slot, record: Record) -> Write:
        return pack_record(slot.identity, record), slot.offsets[record.sequence % COPIES]

    # Headers

    def seal(self) -> None:
        """Write both headers after the last batch, unless they are: from then on it cannot fall back unseen.

        Both, as one of them may lie in the same large page of a disk as what it seals.

        Raises:
            OSError: In doubt; see `Commits.settle`.
        """
        self.commits.settle()
        if not self._sealed:
            for _ in range(HEADERS):
                self._write_header(self._header(self._turn()))
            self._sealed = True

    def _turn(self) -> int:
        """Return which header is to be written next: the one that is damaged, or the older one."""
        ages = [-1 if header is None else header.batch for header in self._headers]
        return ages.index(min(ages))

    def _header(self, copy: int) -> Header:
        return Header(copy, self._store_id, len(self._slots), self._batch + 1, self._total)

    def _write_header(self, header: Header, once_durable: Callable[[], None] | None = None) -> None:
        def take() -> None:
            self._batch = header.batch
            self._headers[header.copy] = header
            if once_durable is not None:
                once_durable()

        self.commits.commit([(pack_header(header), header_offset(header.copy))], take)


def _without_digest(mark: Mark | None) -> Mark | None:
    return None if mark is None else Mark(mark.level, mark.round, None)
