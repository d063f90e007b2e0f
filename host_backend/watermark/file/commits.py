"""Writes to an open watermark file, each of which is durable or in doubt.

After any error of a write or a sync nothing is known of it: the same bytes are written again in the same places, and
synced, before anything else is written. No other process writes to the file; if one did, the look of the file shows it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias

from host_backend.watermark.file.blocks import Blocks, read_block, write_whole
from host_backend.watermark.file.layout import BLOCK_BYTES, block

#: What a block, or several in a row, are made of, zeros up to their end left out; and where the first begins.
Write: TypeAlias = tuple[bytes, int]

#: Bytes written by one call at most: a call that fails half way leaves as much to be written again.
_MAX_ROW_BYTES = 1024 * 1024
_ZEROS = bytes(BLOCK_BYTES)


class Commits:
    """The writes to one file.

    Attributes:
        tries: How often what was written last has failed.
    """

    def __init__(self, file: Blocks) -> None:
        self.file = file
        self.tries = 0
        self._in_doubt: Sequence[Write] = ()
        self._once_durable: Callable[[], None] | None = None
        self._look = _look(file)

    @property
    def in_doubt(self) -> bool:
        """Whether it is not known what became of the last write."""
        return bool(self._in_doubt)

    def commit(self, writes: Sequence[Write], once_durable: Callable[[], None] | None = None) -> None:
        """Write and sync; nothing may be in doubt.

        Args:
            writes: At least one.
            once_durable: What to do once all of it is durable, now or when it is settled.

        Raises:
            OSError: In doubt; see `settle`.
        """
        assert not self._in_doubt  # noqa: S101 -- the blocks in doubt would be forgotten
        self._in_doubt, self._once_durable = writes, once_durable
        self.settle()

    def settle(self) -> None:
        """Write again the blocks in doubt; do nothing without any.

        Raises:
            OSError: It is still in doubt.
        """
        if not self._in_doubt:
            return
        try:
            self.write_synced(self._in_doubt)
        except BaseException:
            self.tries += 1
            raise
        once_durable, self._in_doubt, self._once_durable, self.tries = self._once_durable, (), None, 0
        if once_durable is not None:
            once_durable()

    def write_synced(self, writes: Iterable[Write]) -> None:
        """Write where nothing counts yet, and sync.

        Raises:
            OSError: The content is not known.
        """
        try:
            for pieces, offset in _in_one(writes):
                write_whole(self.file, pieces, offset)
            self.file.fdatasync()
        finally:
            with suppress(OSError):
                self._look = _look(self.file)

    def changed_by_others(self) -> bool:
        """Tell whether the file looks otherwise than after the last write.

        Raises:
            OSError: It cannot be looked at.
        """
        return _look(self.file) != self._look

    def is_as_written(self, blocks: Iterable[Write]) -> bool:
        """Read single blocks again, and return whether they are as written; blocks in doubt are written again anyway.

        Raises:
            OSError: The file cannot be looked at.
        """
        self._look = _look(self.file)
        in_doubt = {offset for _, offset in self._in_doubt}
        return all(read_block(self.file, offset) == block(data) for data, offset in blocks if offset not in in_doubt)


def _in_one(writes: Iterable[Write]) -> Iterator[tuple[list[bytes], int]]:
    """Join what lies in a row: rights that sign together have slots that were given together."""
    row: list[bytes] = []
    start = end = 0
    for data, offset in writes:
        if offset != end or end - start >= _MAX_ROW_BYTES:
            if row:
                yield row, start
            row, start, end = [], offset, offset
        # Not copied into a block of its own: what a batch costs is the copying, for the most part.
        padding = -len(data) % BLOCK_BYTES
        row.append(data)
        if padding:
            row.append(_ZEROS[:padding])
        end += len(data) + padding
    if row:
        yield row, start


def _look(file: Blocks) -> tuple[int, ...]:
    stat = file.fstat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_nlink
