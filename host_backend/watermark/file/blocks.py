"""The calls by which the watermark file is read and written: the seam at which tests make a disk fail.

Everything that is believed of a disk is in these methods' words. `PosixBlocks` is the real one.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from host_backend.durable import LockHeld, holder_of_inode
from host_backend.errors import StateConflict
from host_backend.watermark.file.layout import BLOCK_BYTES


class Blocks(Protocol):
    """An open file."""

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from a place; what was written and not synced may be among them."""
        ...

    def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
        """Write up to 1 000 pieces one after the other; return how many bytes were taken. Not durable yet."""
        ...

    def fdatasync(self) -> None:
        """Return when everything written is durable. After an error nothing is known of what was written."""
        ...

    def fstat(self) -> os.stat_result:
        """Return what the file looks like."""
        ...

    def close(self) -> None:
        """Let go of it, and of its lock."""
        ...


class PosixBlocks:
    """A file of this machine, held by an exclusive lock on its inode where it is to be written.

    Whatever the path, a hard link or a mount: there is one lock, as all of the store is in one file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def reading(cls, path: Path) -> "PosixBlocks":
        """Open for reading, beside its owner.

        Raises:
            ConfigError: It is not a regular file.
            OSError: It cannot be opened.
        """
        return cls(_open_regular(path, os.O_RDONLY))

    @classmethod
    def writing(cls, path: Path) -> "PosixBlocks":
        """Open an existing file for writing, and keep others out until it is closed.

        Raises:
            LockHeld: Another process has it.
            ConfigError: It is not a regular file.
            OSError: It cannot be opened.
        """
        descriptor = _open_regular(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of_inode(os.fstat(descriptor))
            os.close(descriptor)
            who = "another process" if holder is None else f"process {holder}"
            raise LockHeld(f"watermark store {path} is in use by {who}: stop it first, or use another store") from None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def pread(self, size: int, offset: int) -> bytes:
        """Read; see `Blocks.pread`."""
        return os.pread(self._descriptor, size, offset)

    def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
        """Write; see `Blocks.pwritev`."""
        return os.pwritev(self._descriptor, pieces, offset)

    def fdatasync(self) -> None:
        """Sync; see `Blocks.fdatasync`."""
        os.fdatasync(self._descriptor)

    def fstat(self) -> os.stat_result:
        """Look; see `Blocks.fstat`."""
        return os.fstat(self._descriptor)

    def close(self) -> None:
        """Close; may be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def _open_regular(path: Path, flags: int) -> int:
    # Without blocking: a pipe would wait for somebody at its other end.
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise StateConflict(
        f"watermark store {path} is not a regular file: put the store there, or correct what leads there"
    )


def read_block(file: Blocks, offset: int) -> bytes | None:
    """Return one block; None when the disk does not give it, or not all of it."""
    try:
        data = file.pread(BLOCK_BYTES, offset)
    except OSError:
        return None
    return data if len(data) == BLOCK_BYTES else None


def write_whole(file: Blocks, pieces: Sequence[bytes], offset: int) -> None:
    """Write all of it.

    Raises:
        OSError: Not known how much was written.
    """
    written, wanted = file.pwritev(pieces, offset), sum(map(len, pieces))
    if written != wanted:
        raise OSError(errno.ENOSPC, f"{written} of {wanted} bytes were written")
