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
from contextlib import suppress
from functools import partial

from host_backend.errors import reason_of
from host_backend.watermark.file.blocks import Blocks, read_block, write_whole
from host_backend.watermark.file.layout import (
    BLOCK_BYTES,
    COPIES,
    HEADERS,
    MAX_SLOTS,
    SUM_MODULUS,
    Header,
    Record,
    block,
    file_bytes,
    header_offset,
    pack_header,
    pack_record,
    slot_offset,
    weight,
)
from host_backend.watermark.file.opening import Image, Slot, read_image
from host_backend.watermark.rule import Mark, MarkKey, merged

#: Slots that shall be free in the file, so that a new right rarely has to wait until the file has grown.
SPARE_SLOTS = 64
#: Zeros written at once when the file grows.
_GROWTH_BYTES = 64 * BLOCK_BYTES

_Write = tuple[bytes, int]


class NoSlot(Exception):
    """The file could not grow, or no slot could be given: those rights alone get no mark now; the text says why."""


class SlotFile:
    """A watermark file that is open for writing.

    Attributes:
        marks: The mark of every right that has one and is not refused.
        refused: Rights whose mark was damaged, and the highest mark of theirs that is known.
        tries: How often what was written last has failed.
    """

    def __init__(self, file: Blocks, image: Image) -> None:
        self._file = file
        self._store_id = image.store_id
        self._headers = image.headers
        self._slots = image.slots
        self._batch = image.batch
        self._total = image.total
        self._numbers: dict[MarkKey, int] = {}
        self.marks: dict[MarkKey, Mark] = {}
        self.refused: dict[MarkKey, Mark | None] = {}
        self.tries = 0
        for number, slot in enumerate(self._slots):
            self._note(number, slot.record)
        self._in_doubt: list[_Write] = []
        self._once_durable: Callable[[], None] = _nothing
        self._sealed = False
        self._look = _look(file)
        # Up to where the file is made of blocks that were written and synced.
        self._grown_bytes = file_bytes(len(self._slots))

    @classmethod
    def open(cls, file: Blocks) -> "SlotFile":
        """Read a file, and make durable what is in it; until then it is only read.

        Raises:
            Damage: It cannot be used as it is.
            OSError: It could not be read or written.
        """
        slots = cls(file, read_image(file))
        slots.begin()
        return slots

    def begin(self) -> None:
        """Make durable what was read, and refuse what is damaged; call once, before anything else is written.

        Raises:
            OSError: Not done; open the file anew.
        """
        last = [slot.record for slot in self._slots if slot.record.batch and slot.record.batch == self._batch]
        if last:
            self._commit([self._copy(record) for record in last], _nothing)
        worse = min(range(HEADERS), key=self._header_age)
        for copy in (worse, 1 - worse):
            self._write_header(copy, len(self._slots))
        if damaged := [slot.record for slot in self._slots if None in slot.copies]:
            self._write_records(damaged, refused=True)

    def learn(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Take what others have marked for what is known of refused rights; only a person mends them."""
        for key in self.refused.keys() & marks.keys():
            self.refused[key] = merged(self.refused[key], marks[key])

    def _header_age(self, copy: int) -> int:
        header = self._headers[copy]
        return -1 if header is None else header.batch

    # Reading

    @property
    def keys(self) -> Iterator[MarkKey]:
        """Every right that has a slot, also those without a mark."""
        return iter(self._numbers)

    def has_slot(self, key: MarkKey) -> bool:
        """Tell whether a right has a slot, with a mark or without."""
        return key in self._numbers

    def changed_by_others(self) -> bool:
        """Tell whether the file looks otherwise than after the last write.

        Raises:
            OSError: It cannot be looked at.
        """
        return _look(self._file) != self._look

    def is_as_written(self) -> bool:
        """Read the whole file again, and tell whether every block in use is what was written.

        What is in doubt is not looked at: it is written again.

        Raises:
            OSError: It cannot be looked at.
        """
        self._look = _look(self._file)
        in_doubt = {offset for _, offset in self._in_doubt}
        return all(
            read_block(self._file, offset) == data for data, offset in self._all_blocks() if offset not in in_doubt
        )

    def _all_blocks(self) -> Iterator[_Write]:
        for copy, header in enumerate(self._headers):
            if header is not None:
                yield block(pack_header(header)), header_offset(copy)
        for slot in self._slots:
            for record in slot.copies:
                if record is not None:
                    yield self._copy(record)

    # Writing

    @property
    def in_doubt(self) -> bool:
        """Whether it is not known what became of the last write."""
        return bool(self._in_doubt)

    def settle(self) -> None:
        """Write again what is in doubt; do nothing when nothing is.

        Raises:
            OSError: It is still in doubt.
        """
        if not self._in_doubt:
            return
        try:
            for data, offset in self._in_doubt:
                write_whole(self._file, data, offset)
            self._file.fdatasync()
        except BaseException:
            self.tries += 1
            with suppress(OSError):
                self._look = _look(self._file)
            raise
        self._in_doubt, self.tries = [], 0
        once_durable, self._once_durable = self._once_durable, _nothing
        once_durable()
        self._look = _look(self._file)

    def _commit(self, writes: list[_Write], once_durable: Callable[[], None]) -> None:
        assert not self._in_doubt  # noqa: S101 -- what is in doubt would be forgotten
        self._in_doubt, self._once_durable = writes, once_durable
        self.settle()

    def give(self, keys: Sequence[MarkKey]) -> None:
        """Give a slot to every right that has none; all of them have one when this returns.

        Raises:
            NoSlot: None of them got one; everything else is as before.
            OSError: In doubt; see `settle`.
        """
        self.settle()
        first = len(self._slots)
        new = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        if not new:
            return
        if first + len(new) > MAX_SLOTS:
            raise NoSlot(f"it has {first} slots, and {MAX_SLOTS} at most")
        given: list[Slot] = []
        try:
            self._grow(first + len(new))
            for number, key in enumerate(new, first):
                copies = [
                    Record(number, key, None, refused=False, sequence=n, batch=0, before=0) for n in range(COPIES)
                ]
                for record in copies:
                    write_whole(self._file, *self._copy(record))
                given.append(Slot(copies[-1], list(copies)))
            self._file.fdatasync()
        except (OSError, ValueError) as error:
            # Behind the slots in use nothing counts, and the next one to be given writes over it.
            raise NoSlot(reason_of(error) if isinstance(error, OSError) else str(error)) from error
        finally:
            self._look = _look(self._file)
        self._count(given)

    def _count(self, given: list[Slot]) -> None:
        before = self._total + sum(weight(slot.record.slot, slot.record.sequence) for slot in given)

        def take() -> None:
            for slot in given:
                self._slots.append(slot)
                self._note(slot.record.slot, slot.record)
            self._total = before % SUM_MODULUS

        # One is durable before the other is begun, by `write`, and both before a mark stands in a new slot.
        self._write_header(self._turn(), len(self._slots) + len(given), before % SUM_MODULUS, take)

    def _level_headers(self) -> None:
        """Bring both headers to the present count: a mark that only one of them counts could be lost with it."""
        for copy, header in enumerate(self._headers):
            if header is None or header.slots != len(self._slots):
                self._write_header(copy, len(self._slots))

    def _grow(self, slots: int) -> None:
        wanted = file_bytes(slots)
        if self._grown_bytes >= wanted:
            return
        # Written, not only reserved: a block that is there is written later without asking for room.
        for offset in range(self._grown_bytes, wanted, _GROWTH_BYTES):
            write_whole(self._file, bytes(min(_GROWTH_BYTES, wanted - offset)), offset)
        self._file.fdatasync()
        self._grown_bytes = wanted

    def grow_ahead(self) -> None:
        """See that some slots are free; to be called when nobody waits.

        Raises:
            OSError: There is no room for more.
        """
        try:
            self._grow(len(self._slots) + SPARE_SLOTS)
        finally:
            self._look = _look(self._file)

    def write(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Store marks, whatever was there; durable when this returns. All of them have slots.

        A right that was refused is so no more: only who has compared may write it.

        Raises:
            OSError: In doubt; see `settle`.
            ValueError: A mark is none that a chain can have; nothing was written.
        """
        self.settle()
        self._level_headers()
        records = [self._slots[self._numbers[key]].record for key in marks]
        self._write_records(records, marks=marks)

    def _write_records(
        self, over: Sequence[Record], *, marks: Mapping[MarkKey, Mark] | None = None, refused: bool = False
    ) -> None:
        """Write the next record of slots: with a mark, or refusing, with the mark that is known."""
        batch, before = self._batch + 1, self._total
        records = [
            Record(
                slot=old.slot,
                key=old.key,
                mark=_without_digest(old.mark) if marks is None else marks[old.key],
                refused=refused,
                sequence=old.sequence + 1,
                batch=batch,
                before=before,
            )
            for old in over
        ]
        self._commit([self._copy(record) for record in records], partial(self._take, batch, records))

    def _take(self, batch: int, records: Sequence[Record]) -> None:
        self._batch, self._sealed = batch, False
        for record in records:
            slot = self._slots[record.slot]
            self._total += weight(record.slot, record.sequence) - weight(record.slot, slot.record.sequence)
            slot.record = slot.copies[record.sequence % COPIES] = record
            self._note(record.slot, record)
        self._total %= SUM_MODULUS

    def _note(self, number: int, record: Record) -> None:
        self._numbers[record.key] = number
        if record.refused:
            self.refused[record.key] = record.mark
            self.marks.pop(record.key, None)
        elif record.mark is not None:
            self.refused.pop(record.key, None)
            self.marks[record.key] = record.mark

    def seal(self) -> None:
        """Write a header after the last batch, if there is none yet: from then on that batch cannot fall back unseen.

        Raises:
            OSError: In doubt; see `settle`.
        """
        self.settle()
        if not self._sealed:
            self._write_header(self._turn(), len(self._slots))

    def _turn(self) -> int:
        return min(range(HEADERS), key=self._header_age)

    def _write_header(
        self, copy: int, slots: int, before: int | None = None, once_durable: Callable[[], None] | None = None
    ) -> None:
        total = self._total if before is None else before
        header = Header(copy, self._store_id, slots, self._batch + 1, total)

        def take() -> None:
            self._batch, self._sealed = header.batch, True
            self._headers[copy] = header
            if once_durable is not None:
                once_durable()

        self._commit([(block(pack_header(header)), header_offset(copy))], take)

    def _copy(self, record: Record) -> _Write:
        return block(pack_record(self._store_id, record)), slot_offset(record.slot, record.sequence % COPIES)


def _nothing() -> None:
    """What there is to do once a write is durable that changes nothing."""


def _without_digest(mark: Mark | None) -> Mark | None:
    return None if mark is None else Mark(mark.level, mark.round, None)


def _look(file: Blocks) -> tuple[int, ...]:
    stat = file.fstat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_nlink
