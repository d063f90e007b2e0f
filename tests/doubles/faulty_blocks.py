"""A watermark file on a disk that fails, tears and forgets, on demand. The rest is the real file.

What a disk may do is modelled on real ones: a write that fails may have been taken in part, up to a block; a
sync that fails says nothing of what was written; what was written since the last good sync may be lost by block, each in
its old or its new form; and a failed sync may leave the new form in memory, where it is read, but never written to the
disk unless it is written again.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from host_backend.watermark.file.blocks import Blocks, PosixBlocks
from host_backend.watermark.file.layout import BLOCK_BYTES

_SECTOR_BYTES = 512
#: What becomes of an unsynced block when power is lost: its old content, and its new one, give what is found.
Loss = Callable[[int, bytes, bytes], bytes]


def keep_old(_offset: int, old: bytes, _new: bytes) -> bytes:
    """Everything since the last good sync is lost."""
    return old


def keep_new(_offset: int, _old: bytes, new: bytes) -> bytes:
    """Everything has reached the disk, though no sync has said so."""
    return new


def torn(_offset: int, old: bytes, new: bytes) -> bytes:
    """Of every block a sector is new."""
    return new[:_SECTOR_BYTES] + old[_SECTOR_BYTES:]


class FaultyBlocks:
    """One open file of a `FaultyDisk`."""

    def __init__(self, disk: "FaultyDisk", real: Blocks) -> None:
        self._disk = disk
        self._real = real

    def pread(self, size: int, offset: int) -> bytes:
        if offset in self._disk.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._real.pread(size, offset)

    def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
        data = b"".join(pieces)
        self._disk.before_write(data)
        with self._disk.frozen():
            return self._pwrite(data, offset)

    def _pwrite(self, data: bytes, offset: int) -> int:
        self._disk.remember(self._real, data, offset)
        if fault := self._disk.next_fault():
            torn = self._disk.torn_bytes
            if torn:
                self._real.pwritev([data[:torn]], offset)
            raise fault
        return self._real.pwritev([data], offset)

    def fdatasync(self) -> None:
        with self._disk.frozen():
            self._fdatasync()

    def _fdatasync(self) -> None:
        if fault := self._disk.next_fault():
            self._disk.sync_failed()
            raise fault
        self._real.fdatasync()
        self._disk.synced()

    def fstat(self) -> os.stat_result:
        return self._real.fstat()

    def close(self) -> None:
        self._real.close()


class FaultyDisk:
    """Opens files whose writes and syncs fail as a test asks.

    Attributes:
        calls: Writes and syncs so far, those that failed included.
        syncs: Syncs that succeeded so far.
        fail_at: Numbers of calls, from 1, that fail.
        fail_next: How many of the next calls fail.
        torn_bytes: How much of a failing write is taken nevertheless.
        error: The error number of failures.
        unreadable: Offsets of blocks that cannot be read.
        gate: Writes wait while it is clear.
        stalled: Set when a write waits.
        unsynced: What the blocks written since the last good sync were before, and are now; by offset.
        forgotten: The same of blocks whose sync failed: memory has them, the disk never gets them unless they are written
            again.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.syncs = 0
        self.fail_at: frozenset[int] = frozenset()
        self.fail_next = 0
        self.torn_bytes = 0
        self.error = errno.EIO
        self.unreadable: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.stalled = threading.Event()
        self.unsynced: dict[int, tuple[bytes, bytes]] = {}
        self.forgotten: dict[int, tuple[bytes, bytes]] = {}
        self._moving = threading.Lock()

    def open(self, path: Path) -> FaultyBlocks:
        return FaultyBlocks(self, PosixBlocks.writing(path))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let no write or sync happen meanwhile: a copy made then is what a kill at one moment leaves."""
        with self._moving:
            yield

    def fail_call(self, number: int) -> None:
        """Have one of the next calls fail, 1 being the very next one."""
        self.fail_at |= {self.calls + number}

    def next_fault(self) -> OSError | None:
        self.calls += 1
        if self.fail_next:
            self.fail_next -= 1
        elif self.calls not in self.fail_at:
            return None
        return OSError(self.error, os.strerror(self.error))

    def before_write(self, data: bytes) -> None:
        if not self.gate.is_set():
            self.stalled.set()
            self.gate.wait(60)

    def remember(self, real: Blocks, data: bytes, offset: int) -> None:
        for start in range(0, len(data), BLOCK_BYTES):
            block = data[start : start + BLOCK_BYTES]
            place = offset + start
            known = self.unsynced.get(place) or self.forgotten.pop(place, None)
            old = known[0] if known else real.pread(BLOCK_BYTES, place)
            self.unsynced[place] = (old, block)

    def synced(self) -> None:
        self.syncs += 1
        self.unsynced.clear()

    def sync_failed(self) -> None:
        self.forgotten |= self.unsynced
        self.unsynced.clear()

    def lose_power(self, path: Path, loss: Loss = keep_old) -> None:
        """Leave of a file what a disk has that lost power; call when no one has it open."""
        with path.open("r+b") as file:
            for offset, (old, new) in (self.unsynced | self.forgotten).items():
                file.seek(offset)
                file.write(loss(offset, old.ljust(BLOCK_BYTES, b"\0"), new))
        self.unsynced.clear()
        self.forgotten.clear()
