"""A disk with one watermark file, which tears, forgets, misdirects and rots.

What a disk may do is modelled on real ones; `tests/doubles/faulty_blocks.py` has the same in words.
Blocks are durable, or in memory alone: written since the last good sync, or since a sync that failed.
"""

import errno
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random

from tests.worlds.clock import Process

BLOCK = 4096
_SECTOR = 512
_ZEROS = bytes(BLOCK)


class Killed(BaseException):
    """The program was killed in the middle of a call; only the world catches this."""


class Look:
    """What `fstat` tells."""

    __slots__ = ("st_mtime_ns", "st_size")
    st_dev = st_ino = st_nlink = 1
    st_ctime_ns = 0

    def __init__(self, size: int, writes: int) -> None:
        self.st_size = size
        self.st_mtime_ns = writes


class Disk:
    """The file, as long as the world lasts.

    Attributes:
        durable: Blocks by number; zeros are left out.
        memory: Blocks written since the last sync.
        lost: Blocks whose sync failed: they are read, and never reach the disk unless they are written again.
        replaced: What the blocks were before that the last syncs made durable.
        armed: What goes wrong with the next calls, the first one first.
        unreadable: Blocks that are not read at the moment.
        full: Whether it can grow no more.
        fail_writes, fail_syncs: How many of the next calls fail.
        failed: Whether a write or a sync has failed since the last good sync.
        kill_after_failure: Whether the program is killed in the call after the next one that fails.
        kill_in: After how many calls the program is killed; None when it is not.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.durable: dict[int, bytes] = {}
        self.memory: dict[int, bytes] = {}
        self.lost: dict[int, bytes] = {}
        self.size = 0
        self.writes = 0
        self.replaced: deque[dict[int, bytes]] = deque(maxlen=6)
        self.armed: list[Callable[[int, bytes], None]] = []
        self.unreadable: set[int] = set()
        self.full = False
        self.fail_syncs = 0
        self.fail_writes = 0
        self.failed = False
        self.kill_after_failure = False
        self.kill_in: int | None = None

    # What the world does

    def put(self, blocks: Mapping[int, bytes], size: int) -> None:
        """Put a file there, durably."""
        self.durable, self.memory, self.lost, self.size = dict(blocks), {}, {}, size
        self.writes += 1
        self.unreadable.clear()

    def snapshot(self) -> tuple[dict[int, bytes], int]:
        """Return what a backup of the file has."""
        return self.durable | self.lost | self.memory, self.size

    def lose_power(self) -> bool:
        """Leave of unsynced blocks the old, the new, or a part of either, block by block; tell whether any tore."""
        torn = False
        for number, new in (self.lost | self.memory).items():
            old = self.durable.get(number, _ZEROS)
            match self._chance.randrange(5):
                case 0:
                    self.durable[number] = new
                case 1 | 2 as where:
                    # Between sectors, which leaves a record whole; or anywhere in it.
                    cut = _SECTOR * self._chance.randrange(1, 8) if where == 1 else self._chance.randrange(1, 200)
                    mixed = new[:cut] + old[cut:]
                    torn = torn or mixed not in (old, new)
                    self.durable[number] = mixed
        self.memory.clear()
        self.lost.clear()
        return torn

    def read(self, number: int) -> bytes:
        """Return a block as programs see it."""
        return self.memory.get(number) or self.lost.get(number) or self.durable.get(number, _ZEROS)

    def keep(self, number: int, block: bytes) -> None:
        """Take a block that is written."""
        self.memory[number] = block
        if self.lost:
            self.lost.pop(number, None)

    def make_room(self) -> None:
        """Let the file grow again."""
        self.full = False

    def rot(self, number: int) -> None:
        """Flip a bit of a block."""
        data = bytearray(self.read(number))
        data[self._chance.randrange(160)] ^= 1 << self._chance.randrange(8)
        self.memory.pop(number, None)
        self.lost.pop(number, None)
        self.durable[number] = bytes(data)


class OpenFile:
    """The file as one program has it open: `Blocks`."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process

    def pread(self, size: int, offset: int) -> bytes:
        number, disk = offset // BLOCK, self._disk
        if number in disk.unreadable:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if offset >= disk.size:
            return b""
        return disk.read(number)

    def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
        disk = self._disk
        self._step()
        if disk.full and offset >= disk.size:
            disk.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = b"".join(pieces)
        disk.writes += 1
        if disk.fail_writes:
            disk.fail_writes -= 1
            if disk.kill_after_failure:
                disk.kill_after_failure, disk.kill_in = False, 0
            self._keep(data[: len(data) // 2 // BLOCK * BLOCK], offset)
            disk.failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._keep(data, offset)
        return len(data)

    def _keep(self, data: bytes, offset: int) -> None:
        disk, size = self._disk, len(data)
        for number, start in enumerate(range(0, size, BLOCK), offset // BLOCK):
            block = data if size == BLOCK else data[start : start + BLOCK]
            if disk.armed:
                disk.armed.pop(0)(number, block)
            elif disk.lost:
                disk.keep(number, block)
            else:
                disk.memory[number] = block
        disk.size = max(disk.size, offset + size)

    def fdatasync(self) -> None:
        disk = self._disk
        self._step()
        if disk.fail_syncs:
            disk.fail_syncs -= 1
            disk.lost.update(disk.memory)
            disk.memory.clear()
            disk.failed = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        disk.failed = False
        if disk.memory:
            disk.replaced.append({number: disk.durable.get(number, _ZEROS) for number in disk.memory})
        disk.durable.update(disk.memory)
        disk.memory.clear()

    def _step(self) -> None:
        """Pass while the program lives."""
        if self._process.dead:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._disk.kill_in is not None:
            if self._disk.kill_in == 0:
                self._disk.kill_in = None
                raise Killed
            self._disk.kill_in -= 1

    def fstat(self) -> os.stat_result:
        return Look(self._disk.size, self._disk.writes)  # type: ignore[return-value]

    def close(self) -> None:
        pass
