"""A store rebuilt from everything that can still be read: the way back from every store that does not start.

- Every whole record counts, wherever it stands; so do Signatory's files, the store of version 0.1, and the rights that
  the caller names. Of each right the highest mark is taken, and none is below the level that the caller gives.
- Nothing is thrown away: the old store, and files of Signatory's that cannot be read, are put aside under other names.
"""

from contextlib import ExitStack
from pathlib import Path

from host_backend.durable import real_path
from host_backend.watermark.file.blocks import Blocks, PosixBlocks, read_block
from host_backend.watermark.file.layout import BLOCK_BYTES, MAX_SLOTS, file_bytes, parse_stray_record
from host_backend.watermark.file.making import write_store
from host_backend.watermark.file.old_sqlite import (
    OldStore,
    give_up_old_store,
    old_store_path,
    salvage_old_marks,
    state_of,
)
from host_backend.watermark.file.place import (
    held_folder,
    reporting,
    require_file_system,
    require_replaceable,
    store_path,
)
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, merged, union
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import put_aside, read_signatory_marks, unreadable_files


def rebuild_store(base_dir: Path, rebuilt: Rebuilt, suffix: str, *, in_memory_allowed: bool) -> int:
    """Rebuild a store; see `MarksAdmin.rebuild`."""
    path, old_path, folder = store_path(base_dir), old_store_path(base_dir), SignatoryFolder(base_dir)
    require_file_system(path, in_memory_allowed=in_memory_allowed)
    with held_folder(base_dir) as claim, reporting(path), ExitStack() as closing:
        real = real_path(path)
        require_replaceable(path)
        found = _salvaged(real, closing)
        old = state_of(old_path)
        if old is OldStore.COUNTS:
            found = union(found, salvage_old_marks(old_path))
        unreadable = unreadable_files(base_dir)
        marks = rebuilt.raised(union(found, read_signatory_marks(base_dir, without=unreadable)), MAX_SLOTS)
        claim()
        # Whatever keeps others out stays until the new store is there.
        if not folder.left_behind:
            folder.begin()
        write_store(real, marks, keep_old_as=real.name + suffix if real.exists() else None)
        put_aside(unreadable, suffix)
        if old_path.exists():
            give_up_old_store(old_path)
        folder.hand_back(marks)
    return len(marks)


def _salvaged(real: Path, closing: ExitStack) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right that any whole record has."""
    try:
        file = PosixBlocks.writing(real)
    except FileNotFoundError:
        return {}
    closing.callback(file.close)
    return salvaged_marks(file)


def salvaged_marks(file: Blocks) -> dict[MarkKey, Mark]:
    """Return the highest mark of each right that any whole record of a file has, of whatever store it is.

    Raises:
        OSError: The file cannot be looked at.
    """
    found: dict[MarkKey, Mark] = {}
    for offset in range(0, min(file.fstat().st_size, file_bytes(MAX_SLOTS)), BLOCK_BYTES):
        record = parse_stray_record(read_block(file, offset))
        if record is not None and record.mark is not None:
            found[record.key] = merged(found.get(record.key), record.mark)
    return found
