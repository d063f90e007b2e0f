"""A new watermark file, written whole: at its path there is none, the old one, or all of the new one."""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from host_backend.durable import free_name, replaced
from host_backend.watermark.file.layout import (
    COPIES,
    HEADERS,
    STORE_ID_BYTES,
    Header,
    Record,
    block,
    file_bytes,
    header_offset,
    pack_header,
    pack_identity,
    pack_record,
    slot_offset,
    total,
)
from host_backend.watermark.rule import Mark, MarkKey

#: Zeros written at once.
_PIECE_BYTES = 256 * 1024


def write_store(path: Path, marks: Mapping[MarkKey, Mark], *, keep_old_as: str | None = None) -> None:
    """Write a file with marks, durably, and put it in its place.

    Args:
        path: Where, behind all links; call while the folder is held.
        marks: Its marks.
        keep_old_as: The name that a file which is there gets beside the new one; None when there is none.

    Raises:
        OSError: Not done; what was there is there. No temporary file is left.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        # Of a process that was killed here; the folder is held.
        left.unlink()
    old = None if keep_old_as is None else free_name(path.with_name(keep_old_as))
    with replaced(path, keep_old_as=old) as file:
        for offset in range(0, size := file_bytes(len(marks)), _PIECE_BYTES):
            file.write(bytes(min(_PIECE_BYTES, size - offset)))
        for data, offset in _blocks(secrets.token_bytes(STORE_ID_BYTES), marks):
            file.seek(offset)
            file.write(data)


def _blocks(store_id: bytes, marks: Mapping[MarkKey, Mark]) -> Iterator[tuple[bytes, int]]:
    """Yield both copies of every slot, with its mark, and the headers that seal them."""
    for number, (key, mark) in enumerate(marks.items()):
        identity = pack_identity(store_id, number, key)
        for copy in range(COPIES):
            record = Record(number, key, mark, refused=False, sequence=copy, batch=0, before=0)
            yield block(pack_record(identity, record)), slot_offset(number, copy)
    before = total((number, COPIES - 1) for number in range(len(marks)))
    for copy in range(HEADERS):
        header = Header(copy, store_id, slots=len(marks), batch=1 + copy, before=before)
        yield block(pack_header(header)), header_offset(copy)
