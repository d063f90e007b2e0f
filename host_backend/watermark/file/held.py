"""A watermark store that this process has: found whole, Signatory kept out, its marks taken over. Synchronous.

- First everything is looked at, in this order: the lock, the store, the note of the last host, the store of version
  0.1, Signatory's files. What stops here has changed nothing.
- Then Signatory is kept out, the store is made durable, and what the others marked is taken over.
- Another process that writes to the file, or replaces it, stops all signing until a restart; what was
  answered for is then saved in Signatory's files, where the next start finds it whatever became of the store.
- While a right is refused for damage nothing is handed back to Signatory, and it is kept out.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from host_backend.durable import real_path
from host_backend.errors import HostError, StateConflict, StoreUnavailable
from host_backend.log import fields
from host_backend.watermark.base import StoredMarks
from host_backend.watermark.file.blocks import Blocks, PosixBlocks
from host_backend.watermark.file.making import write_store
from host_backend.watermark.file.old_sqlite import (
    OldStore,
    give_up_old_store,
    old_store_path,
    read_old_marks,
    state_of,
)
from host_backend.watermark.file.opening import Image, read_image
from host_backend.watermark.file.place import REBUILD, held_folder, reporting, require_file_system, store_path
from host_backend.watermark.file.slots import NoSlot, SlotFile
from host_backend.watermark.rule import Mark, MarkKey, all_damaged_text, is_above, merged, union
from host_backend.watermark.signatory.folder import SignatoryFolder

#: How to open the file for writing: the seam at which tests make a disk fail.
OpenBlocks = Callable[[Path], Blocks]

#: Raises when the present state does not allow a change.
Judge = Callable[[StoredMarks], None]

logger = logging.getLogger(__name__)


class HeldStore:
    """An open store. Get one from `held_store`.

    Attributes:
        path: The path by which it was reached.
        slots: Its marks.
        folder: Signatory's folder beside it.
    """

    def __init__(self, path: Path, file: Blocks, slots: SlotFile, folder: SignatoryFolder) -> None:
        self.path = path
        self.slots = slots
        self.folder = folder
        self._inode = _inode(file.fstat())
        self._changed: StoreUnavailable | None = None

    def require_untouched(self) -> None:
        """Pass while no other process has touched the store or Signatory's files.

        Raises:
            StoreUnavailable: Somebody has, and nothing is signed before a restart.
            OSError: It cannot be looked at.
        """
        if self._changed is not None:
            raise self._changed
        self.folder.check()
        if self._is_at_its_path() and (not self.slots.commits.changed_by_others() or self._is_as_written()):
            return
        self._changed = StoreUnavailable(
            f"watermark store {self.path} was changed, replaced or removed by another program despite the lock: find "
            "that program and stop it, then restart the host; nothing is signed until then"
        )
        self._changed.__cause__ = self._save()
        raise self._changed

    def _is_at_its_path(self) -> bool:
        try:
            return _inode(os.stat(self.path)) == self._inode  # noqa: PTH116 -- before every signature; a third faster
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _is_as_written(self) -> bool:
        if not self.slots.is_as_written():
            return False
        logger.warning("watermark store %s was touched by another program, but its content is unchanged", self.path)
        return True

    def _save(self) -> HostError | None:
        """Save the marks in Signatory's files; return why not."""
        try:
            self.folder.save(self.slots.marks)
        except HostError as error:
            logger.error("marks are not saved in Signatory's files either: %s", error)  # noqa: TRY400 -- said in words
            return error
        return None

    def take_over(self, marks: Mapping[MarkKey, Mark]) -> int:
        """Raise marks to others; a refused right stays so. Return how many were raised; durable when this returns.

        Raises:
            StoreUnavailable: There is no room for all of them, or they were not stored.
        """
        own = self.slots.marks
        wanted = {key: merged(own.get(key), mark) for key, mark in marks.items() if key not in self.slots.refused}
        changed = {key: mark for key, mark in wanted.items() if mark != own.get(key)}
        raised = sum(key not in own or is_above(mark, own[key]) for key, mark in changed.items())
        self.write(changed)
        return raised

    def keep_known(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Have refused rights be raised above these marks only; durable when this returns.

        Raises:
            StoreUnavailable: Not known to be stored.
        """
        with reporting(self.path):
            self.slots.keep_known(marks)

    def write(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Store marks, whatever was there, those of new rights too; durable when this returns.

        Raises:
            StoreUnavailable: Not known to be stored.
        """
        if not marks:
            return
        with reporting(self.path):
            try:
                self.slots.give(list(marks))
            except NoSlot as error:
                raise StoreUnavailable(no_slot_text(self.path, error)) from error
            self.slots.write(marks)

    def hand_back(self) -> None:
        """Seal the store, write the marks to Signatory's files, and let it start.

        Raises:
            HostError: Not done, or not all; Signatory does not start, and the text says why.
        """
        self.require_untouched()
        with reporting(self.path):
            self.slots.seal()
        if self.slots.refused:
            raise StoreUnavailable(
                f"{all_damaged_text(self.slots.refused)}: until that is mended no marks are handed back to Signatory's "
                "files, and it must not start"
            )
        self.folder.hand_back(self.slots.marks)

    def close_in_order(self) -> None:
        """Hand the marks back; where that cannot be, save what can be saved, and raise.

        Raises:
            HostError: Not handed back; the text says why.
        """
        try:
            self.hand_back()
        except HostError as error:
            logger.error("marks are not handed back to Signatory's files, so it must not start: %s", error)  # noqa: TRY400 -- said in words
            if self._changed is None and not self.slots.refused:
                with suppress(HostError):
                    self.folder.check()
                    self._save()
            raise


def stored_marks(image: Image, theirs: Mapping[MarkKey, Mark] | None = None) -> StoredMarks:
    """Return the marks of a file; of a damaged mark, the highest that is known, from Signatory's files too."""
    records = [slot.record for slot in image.slots]
    refused = {slot.record.key: slot.record.mark for slot in image.slots if slot.record.refused or None in slot.copies}
    marks = {record.key: record.mark for record in records if record.mark is not None and record.key not in refused}
    for key in refused.keys() & (theirs or {}).keys():
        refused[key] = merged(refused[key], (theirs or {})[key])
    return StoredMarks(marks, refused)


@contextmanager
def held_store(
    base_dir: Path,
    *,
    in_memory_allowed: bool = False,
    blocks: OpenBlocks = PosixBlocks.writing,
    make_after_signatory: bool = False,
    judge: Judge | None = None,
) -> Iterator[HeldStore]:
    """Hold the store of a folder alone; its content is durable. Longer than most: the order is the point.

    Args:
        base_dir: The folder.
        in_memory_allowed: Whether it may be on a file system in memory.
        blocks: Another way to open the file.
        make_after_signatory: Whether to make the store where Signatory left marks and no host of ours has been.
        judge: Called with the present marks before any change; an error that it raises ends the change.

    Raises:
        HostError: It cannot be used; the text says why and how to go on. If the cause lies in the files, they are as
            they were.
    """
    path, folder = store_path(base_dir), SignatoryFolder(base_dir)
    with held_folder(base_dir) as claim, reporting(path), ExitStack() as closing:
        if warning := require_file_system(path, in_memory_allowed=in_memory_allowed):
            logger.warning("%s", warning)
        opened = _open(path, blocks, closing)
        others = _marks_of_others(base_dir, folder, may_be_missing=make_after_signatory, missing=opened is None)
        left_behind = folder.left_behind
        if judge is not None:
            judge(_stored_with(opened, others))
        claim()
        folder.begin()
        try:
            if opened is None:
                opened = _made(path, others, blocks, closing)
            store = _taken_into_use(base_dir, folder, *opened, others)
        except BaseException:
            # A host that ended in order has handed everything back, so Signatory may start again.
            if not left_behind and not (opened and any(slot.record.refused for slot in opened[1].slots)):
                with suppress(HostError):
                    folder.withdraw()
            raise
        yield store


def _stored_with(opened: tuple[Blocks, Image] | None, others: Mapping[MarkKey, Mark]) -> StoredMarks:
    """Return what a store will hold once it has taken over what others have marked."""
    if opened is None:
        return StoredMarks(others)
    stored = stored_marks(opened[1], others)
    taken = {key: mark for key, mark in others.items() if key not in stored.refused}
    return StoredMarks(union(stored.marks, taken), stored.refused)


def _marks_of_others(
    base_dir: Path, folder: SignatoryFolder, *, may_be_missing: bool, missing: bool
) -> dict[MarkKey, Mark]:
    """Return what Signatory and version 0.1 have marked; raise where a missing store may not be made of it."""
    require_remembered(folder)
    theirs, old_path = folder.read(), old_store_path(base_dir)
    old = state_of(old_path)
    if old is OldStore.COUNTS:
        return union(theirs, read_old_marks(old_path, folder))
    if missing and (folder.left_behind or old is OldStore.TAKEN_OVER or not (theirs and may_be_missing)):
        raise StateConflict(missing_text(base_dir, folder))
    return theirs


def _taken_into_use(
    base_dir: Path, folder: SignatoryFolder, file: Blocks, image: Image, others: Mapping[MarkKey, Mark]
) -> HeldStore:
    """Make the present marks durable, and take over those of others."""
    old_path = old_store_path(base_dir)
    slots = SlotFile(file, image)
    slots.begin()
    store = HeldStore(store_path(base_dir), file, slots, folder)
    # Signatory's once more, as it is kept out only now.
    others = union(others, folder.read())
    slots.learn(others)
    if raised := store.take_over(others):
        logger.warning("%d marks taken over from other files in %s", raised, base_dir)
    if old_path.exists():
        give_up_old_store(old_path)
        logger.warning("the marks of version 0.1 are in %s now; %s is not read again", store.path, old_path)
    store.require_untouched()
    return store


def _made(path: Path, marks: Mapping[MarkKey, Mark], blocks: OpenBlocks, closing: ExitStack) -> tuple[Blocks, Image]:
    write_store(real_path(path), marks)
    logger.info("watermark store made", extra=fields(file=path, marks=len(marks)))
    opened = _open(path, blocks, closing)
    if opened is None:
        raise StoreUnavailable(f"watermark store {path} was made, and is not there any more: find out who removed it")
    return opened


def _open(path: Path, blocks: OpenBlocks, closing: ExitStack) -> tuple[Blocks, Image] | None:
    """Open the store and read all of it; None when there is none."""
    try:
        file = blocks(path)
    except FileNotFoundError:
        return None
    closing.callback(file.close)
    return file, read_image(file)


def no_slot_text(path: Path, error: NoSlot) -> str:
    """Return why another right gets no mark."""
    return f"watermark store {path}: no slot for the first mark of another right: {error}; rights that have one go on"


def require_remembered(folder: SignatoryFolder) -> None:
    """Pass unless a host has kept its marks in memory, or elsewhere, since.

    Raises:
        ConfigError: One has: every mark may be too low.
    """
    folder.require_here()
    if folder.forgotten:
        raise StateConflict(
            "the last host here had `watermark.driver: mem`, so what it signed is not known, or `watermark migrate` to it "
            "was not finished: write `driver: mem` and repeat that, or rebuild the marks with "
            f"{REBUILD}; {theirs_text(folder)}"
        )


def missing_text(base_dir: Path, folder: SignatoryFolder) -> str:
    """Return what to do where there is no store."""
    old_path, way = old_store_path(base_dir), ""
    old = state_of(old_path)
    if old is OldStore.COUNTS:
        count = len(read_old_marks(old_path, folder))
        return (
            f"no watermark store at {store_path(base_dir)}: the next `serve` makes it of the {count} marks in {old_path}, "
            "the store of version 0.1"
        )
    if old is OldStore.TAKEN_OVER:
        why = f", though it took over that of version 0.1 ({old_path.name})"
    elif folder.left_behind:
        why = ", though the last host here did not end in order"
    else:
        why, way = "", " if its keys have never signed, make one with `enclave-host watermark init`;"
    return (
        f"no watermark store at {store_path(base_dir)}{why}:{way} put back the original file, never an earlier copy; or rebuild "
        f"the marks with {REBUILD}; "
        f"{theirs_text(folder)}"
    )


def theirs_text(folder: SignatoryFolder) -> str:
    """Return what Signatory's files say, if other marks are lost.

    Raises:
        HostError: They cannot be read.
    """
    theirs = folder.read()
    if not theirs:
        return f"there are no marks in Signatory's files ({folder.path})"
    highest = max(mark.level for mark in theirs.values())
    return f"Signatory's files ({folder.path}) have {len(theirs)} marks, the highest at level {highest}"


def _inode(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino
