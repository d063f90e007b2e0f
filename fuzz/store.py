"""A file of marks, changed as some bytes say, and what must hold for whatever of it is accepted."""

import os
import tempfile
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path

from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.layout import (
    BLOCK_BYTES,
    COPIES,
    HEADERS,
    RECORD_BYTES,
    header_offset,
    pack_header,
    slot_offset,
)
from host_backend.watermark.file.opening import Damage, Image, read_image
from host_backend.watermark.file.place import store_path
from host_backend.watermark.rule import Mark
from tests.doubles.watermarks import KEY, OTHER, advance, created

_SLOTS = 2
#: The blocks that are changed: headers, slots in use, and the first free slot.
_PLACES = [header_offset(copy) for copy in range(HEADERS)] + [
    slot_offset(slot, copy) for slot in range(_SLOTS + 1) for copy in range(COPIES)
]
_CHECKSUM_BYTES = 16
_ZEROS = bytes(BLOCK_BYTES)


class MemoryBlocks:
    """A file in memory, most of it zero."""

    def __init__(self, blocks: dict[int, bytes], size: int) -> None:
        self.blocks, self.size = blocks, size

    def pread(self, size: int, offset: int) -> bytes:
        """Return one block, cut off at the file's end."""
        return self.blocks.get(offset, _ZEROS)[: min(size, max(0, self.size - offset))]

    def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
        """Opening writes nothing."""
        raise NotImplementedError

    def fdatasync(self) -> None:
        """Opening writes nothing."""
        raise NotImplementedError

    def fstat(self) -> os.stat_result:
        """Return a status that has the size alone."""
        return os.stat_result((0,) * 6 + (self.size,) + (0,) * 3)

    def close(self) -> None:
        """Let go of nothing."""


@cache
def _whole() -> tuple[dict[int, bytes], int, Image]:
    """Return the blocks of a store with two marks, its size, and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        base = created(Path(folder))
        for key, level in ((KEY, 1), (KEY, 2), (OTHER, 2), (KEY, 3), (OTHER, 3)):
            advance(base, key, Mark(level, 0, bytes([level]) * 32))
        path = store_path(base)
        data = path.read_bytes()
        reading = PosixBlocks.reading(path)
        image = read_image(reading)
        reading.close()
    return {at: data[at : at + BLOCK_BYTES] for at in _PLACES}, len(data), image


def open_changed(data: bytes) -> None:
    """Open the store with changes: each five bytes are a block, a place in it, a value, and whether the checksum is mended.

    Where none is mended, what is accepted has for every right its newest mark, or a copy less, which costs the right.
    """
    whole, size, before = _whole()
    headers = [len(pack_header(header)) for header in before.headers if header is not None]
    blocks, mended = dict(whole), False
    for at in range(0, len(data) - 4, 5):
        place, high, low, value, how = data[at : at + 5]
        offset = _PLACES[place % len(_PLACES)]
        block = bytearray(blocks[offset])
        sealed = headers[0] if offset in _PLACES[:HEADERS] else RECORD_BYTES
        block[(high << 8 | low) % (BLOCK_BYTES if how & 2 else sealed)] = value
        if how & 1:
            mended = True
            packed = block[: sealed - _CHECKSUM_BYTES]
            block[sealed - _CHECKSUM_BYTES : sealed] = blake2b(packed, digest_size=_CHECKSUM_BYTES).digest()
        if how & 4:
            # A copy of another block, as a misdirected write leaves it.
            block[:] = whole[_PLACES[value % len(_PLACES)]]
            mended = True
        blocks[offset] = bytes(block)
    try:
        image = read_image(MemoryBlocks(blocks, size - data[-1] if len(data) % 5 else size))
    except Damage as damage:
        assert str(damage)
        return
    if not mended:
        for slot, known in zip(image.slots, before.slots, strict=True):
            assert slot.record == known.record or None in slot.copies
