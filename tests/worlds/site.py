"""A place where a host runs: its disk, and whichever process of the host is there at the time."""

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from host_backend.keystore.base import StoredKey
from host_backend.watermark.file import making
from host_backend.watermark.file.layout import (
    HEADERS,
    MAX_SLOTS,
    Header,
    block,
    file_bytes,
    header_offset,
    parse_header,
    parse_record,
    slot_offset,
    slot_offsets,
)
from host_backend.watermark.file.rebuilding import salvaged_marks
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey
from tests.worlds.clock import Process
from tests.worlds.disk import BLOCK, Disk, OpenFile
from tests.worlds.host import Folder, Host, Keys, open_store
from tests.worlds.messages import Key

_Snapshot = tuple[dict[int, bytes], int, dict[MarkKey, Mark]]


class Site:
    """One place.

    Attributes:
        number: From 0.
        enclave: The name of the enclave that its host asks.
        host: The host that is in service; None while there is none.
        problem: Why the last start was refused; None when it was not.
        damaged: Blocks that were damaged, each counted once.
        torn: Whether power was lost in the middle of a block.
        forgot: Whether anything that was synced may be older than it was.
    """

    def __init__(self, number: int, chance: Random, keys: Sequence[StoredKey]) -> None:
        self.number = number
        self.enclave = "enclave"
        self.process: Process | None = None
        self.host: Host | None = None
        self.disk = Disk(chance)
        self.keys = Keys(*keys)
        self.new_keys: list[Key] = []
        self._good_keys: dict[str, StoredKey] = {}
        self.folder = Folder()
        self.problem: str | None = None
        self.damaged = 0
        self.torn = False
        self.forgot = False
        self.loses_power = False
        self._chance = chance
        self._snapshots: list[_Snapshot] = []

    # Faults

    def take_snapshot(self) -> None:
        """Keep the folder as it is now."""
        self._snapshots.append((*self.disk.snapshot(), self.folder.read()))

    def clone_from(self, other: "Site") -> None:
        """Be a copy of another place."""
        self.disk.put(*other.disk.snapshot())
        self.folder.marks = other.folder.read()
        self.damaged, self.torn, self.forgot = other.damaged, other.torn, other.forgot

    def roll_back(self) -> None:
        """Have the folder as it was at some time before."""
        if self._snapshots:
            blocks, size, marks = self._chance.choice(self._snapshots)
            self.disk.put(blocks, size)
            self.folder.marks = dict(marks)
            self.forgot = True

    def lose_power(self) -> None:
        """Lose unsynced blocks, or parts of it."""
        self.torn = self.disk.lose_power() or self.torn

    def _some_block(self) -> int:
        """Return one of those written last, of those in use, or of all."""
        chosen = self._chance.random()
        if chosen < 0.4 and self.disk.replaced:
            return self._chance.choice(sorted(self.disk.replaced[-1]))
        if chosen < 0.9:
            return self._chance.choice(sorted(self.disk.durable))
        return self._chance.randrange(self.disk.size // BLOCK)

    def rot(self) -> None:
        """Flip a bit of a block."""
        self.disk.rot(self._some_block())
        self.damaged += 1

    def make_unreadable(self) -> None:
        """Let a block not be read for some time."""
        self.disk.unreadable.add(self._some_block())
        self.damaged += 1

    def lose_write(self) -> None:
        """Let one of the next writes not reach the disk, though all seems well."""

        def lose(number: int, block_: bytes) -> None:
            self.forgot = True

        self.disk.armed = [self.disk.keep] * self._chance.randrange(3) + [lose]

    def misdirect_write(self) -> None:
        """Let one of the next writes go elsewhere, though all seems well."""

        def misdirect(number: int, block_: bytes) -> None:
            self.forgot = True
            self.disk.keep(self._some_block(), block_)

        self.disk.armed = [self.disk.keep] * self._chance.randrange(3) + [misdirect]

    def exchange_keys(self) -> None:
        """Have two sealed keys under each other's name, or one that was never sealed."""
        for key in self.keys.stored[:2]:
            self._good_keys.setdefault(key.pkh, key)
        first, *others = self.keys.stored
        if others:
            self.keys.stored[:2] = [StoredKey(first.pkh, others[0].blob), StoredKey(others[0].pkh, first.blob)]
        else:
            self.keys.stored[0] = StoredKey(first.pkh, b"never sealed")

    def bring_keys_back(self) -> None:
        """Let the sealed keys be read again."""
        self.keys.failing = False

    def put_back(self) -> None:
        """Have some slots as they were before; not all that were written since, which no store could notice.

        Nor does one notice it of the last batch after a stop whose disk failed, so that it could not be sealed.
        """
        if not self._snapshots or self._chance.random() < 0.5:
            # What was written last before the stop sealed it.
            older = self._last_batch()
        else:
            blocks = self._chance.choice(self._snapshots)[0]
            slots = [[offset // BLOCK for offset in slot_offsets(number)] for number in range(self._slots())]
            changed = [each for each in slots if any(blocks.get(n, b"") != self.disk.read(n) for n in each)]
            chosen = self._chance.sample(changed, self._chance.randrange(len(changed) + 1))
            older = {n: blocks[n] for each in chosen for n in each if n in blocks}
        unsealed = self._unsealed() if self.disk.failed else ()
        older = {number: data for number, data in older.items() if number not in unsealed}
        for number, data in older.items():
            self.disk.durable[number] = data
        if self._chance.random() < 0.7:
            # Signatory's files are gone as well.
            self.folder.marks.clear()
        # Noticed or not, the same again or not: it may cost rights, and the start.
        self.damaged += 2 * len(older)

    def _headers(self) -> list[Header]:
        read = [parse_header(self.disk.read(header_offset(copy) // BLOCK), copy) for copy in range(HEADERS)]
        return [header for header in read if header is not None]

    def _slots(self) -> int:
        return max((header.slots for header in self._headers()), default=0)

    def _unsealed(self) -> set[int]:
        """Return the blocks of the last batch, if no header was written after it."""
        headers = self._headers()
        if not headers:
            return set()
        batches = {
            offset // BLOCK: self._batch(headers[0].store_id, number, copy)
            for number in range(self._slots())
            for copy, offset in enumerate(slot_offsets(number))
        }
        last = max(batches.values(), default=0)
        sealed = last < max(header.batch for header in headers)
        return set() if sealed else {block for block, batch in batches.items() if batch == last}

    def _batch(self, store_id: bytes, number: int, copy: int) -> int:
        record = parse_record(self.disk.read(slot_offset(number, copy) // BLOCK), store_id, number, copy)
        return 0 if record is None else record.batch

    def _last_batch(self) -> dict[int, bytes]:
        """Return what the marks were before that were written last."""
        headers = {header_offset(copy) // BLOCK for copy in range(HEADERS)}
        batches = [
            {n: data for n, data in each.items() if n not in headers and data != self.disk.read(n)}
            for each in self.disk.replaced
        ]
        return next(filter(None, reversed(batches)), {})

    def heal(self) -> None:
        """Let nothing more go wrong."""
        disk = self.disk
        disk.armed.clear()
        disk.unreadable.clear()
        disk.fail_syncs = disk.fail_writes = 0
        disk.make_room()
        disk.kill_in = None
        disk.kill_after_failure = False
        self.bring_keys_back()
        self.loses_power = False

    # What an operator does

    def mend_keys(self) -> bool:
        """Put sealed keys back where they were; return whether any were elsewhere."""
        good, self._good_keys = self._good_keys, {}
        self.keys.stored = [good.get(key.pkh, key) for key in self.keys.stored]
        return bool(good)

    def make(self, marks: dict[MarkKey, Mark]) -> None:
        """Make a store, as `write_store` does."""
        blocks = {offset // BLOCK: block(data) for data, offset in making._blocks(self._chance.randbytes(16), marks)}
        self.disk.put(blocks, file_bytes(len(marks)))

    def rebuild(self, pkhs: Iterable[str], chains: Sequence[str], above_level: int) -> None:
        """Rebuild the store of what can still be read, as `watermark rebuild` does."""
        found = salvaged_marks(OpenFile(self.disk, Process.idle()))
        self.make(Rebuilt(pkhs, chains, above_level).raised(found, MAX_SLOTS))
        self.folder.marks.clear()

    def raise_refused(self, above_levels: Mapping[str, int]) -> None:
        """Raise every right that is refused, as `watermark raise` does."""
        held = open_store(self.disk, self.folder, Process.idle())
        held.write({key: Mark(above_levels[key.chain_id] + 1, 0, None) for key in held.slots.refused})
        held.slots.seal()
