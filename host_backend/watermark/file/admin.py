"""The `MarksAdmin` of a file store, and of what Signatory and version 0.1 left beside it.

- What changes marks keeps Signatory out first, writes, and then hands all marks back.
- Looking takes no lock, and writes nothing: not even the lock file.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from host_backend.durable import fsync_directory, real_path
from host_backend.errors import HostError, StateConflict
from host_backend.log import fields
from host_backend.watermark.base import MarksDescription, StoredMarks
from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.held import (
    HeldStore,
    Judge,
    OpenBlocks,
    held_store,
    missing_text,
    require_remembered,
    stored_marks,
)
from host_backend.watermark.file.layout import COPIES
from host_backend.watermark.file.making import write_store
from host_backend.watermark.file.old_sqlite import OldStore, old_store_path, read_old_marks, state_of
from host_backend.watermark.file.opening import Damage, Image, read_image
from host_backend.watermark.file.place import (
    STORE_NAME,
    held_folder,
    make_base_dir,
    process_of,
    reporting,
    require_file_system,
    require_replaceable,
    store_path,
)
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, all_damaged_text, damaged_text, is_above, require_in_range, union
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import FOLDER, read_signatory_marks

#: What becomes of the name of a store whose marks were handed to another driver.
RETIRED_NAME = f"{STORE_NAME}.migrated"
#: Readings of a file that a running host writes to, before a bad reading is believed to be damage.
_READINGS = 5

logger = logging.getLogger(__name__)


def _anything(_: StoredMarks) -> None:
    """Allow every change."""


class FileMarks:
    """A `MarksAdmin`.

    Args:
        base_dir: The folder of the store and of Signatory's files.
        in_memory_allowed: Whether the store may be on a file system in memory.
        blocks: Another way to open the file for changes: the seam at which tests make a disk fail.
    """

    def __init__(
        self, base_dir: Path, *, in_memory_allowed: bool = False, blocks: OpenBlocks = PosixBlocks.writing
    ) -> None:
        self._base_dir = base_dir
        self._in_memory_allowed = in_memory_allowed
        self._blocks = blocks
        self._path = store_path(base_dir)
        self._folder = SignatoryFolder(base_dir)

    # Looking

    def read(self) -> StoredMarks:
        """Return every mark; see `MarksAdmin.read`."""
        image = self._look()
        if image is None:
            raise StateConflict(missing_text(self._base_dir, self._folder))
        return stored_marks(image, self._folder.read())

    def _look(self) -> Image | None:
        with reporting(self._path):
            # What a running host is writing may be seen in part.
            for _ in range(_READINGS):
                running = process_of(self._base_dir) is not None
                try:
                    image = _read(self._path, settled=not running)
                except Damage:
                    if not running:
                        raise
                else:
                    if image is None or not running or not any(None in slot.copies for slot in image.slots):
                        return image
            return _read(self._path, settled=False)

    def describe(self) -> MarksDescription:
        """Look at the store; see `MarksAdmin.describe`."""
        with reporting(self._path):
            return self._describe()

    def _describe(self) -> MarksDescription:
        host = process_of(self._base_dir)
        crashed = host is None and self._folder.left_behind
        waiting = self._folder.read()
        require_remembered(self._folder)
        warning = require_file_system(self._path, in_memory_allowed=self._in_memory_allowed)
        image = self._look()
        old_path = old_store_path(self._base_dir)
        if image is None:
            with reporting(old_path):
                old = state_of(old_path)
                if old is OldStore.COUNTS:
                    return MarksDescription(None, len(read_old_marks(old_path, self._folder)), host, crashed)
            if crashed or old is OldStore.TAKEN_OVER:
                raise StateConflict(missing_text(self._base_dir, self._folder))
            return MarksDescription(None, len(waiting), host, crashed)
        stored = stored_marks(image, waiting)
        findings = [damaged_text(key, known) for key, known in stored.refused.items()]
        if warning:
            findings.append(warning)
        return MarksDescription(stored, 0, host, crashed, tuple(findings))

    # Making

    def create(self) -> None:
        """Make the store; see `MarksAdmin.create`."""
        make_base_dir(self._base_dir)
        with held_folder(self._base_dir) as claim, reporting(self._path):
            require_file_system(self._path, in_memory_allowed=self._in_memory_allowed)
            self._require_none()
            theirs = self._folder.read()
            claim()
            write_store(real_path(self._path), theirs)
        logger.info("watermark store made", extra=fields(file=self._path, marks=len(theirs)))

    def _require_none(self) -> None:
        with _writing(self._path) as file:
            if file is not None:
                stored = stored_marks(read_image(file))
                also = f"; {all_damaged_text(stored.refused)}" if stored.refused else ""
                raise StateConflict(
                    f"{self._path} exists and has {len(stored.marks)} marks: a watermark store is never overwritten, and "
                    f"there is nothing to make{also}"
                )
        require_remembered(self._folder)
        if self._folder.left_behind or state_of(old_store_path(self._base_dir)) is not OldStore.NONE:
            raise StateConflict(missing_text(self._base_dir, self._folder))

    def rebuild(self, rebuilt: Rebuilt, suffix: str) -> int:
        """Rebuild the store; see `MarksAdmin.rebuild`."""
        from host_backend.watermark.file.rebuilding import rebuild_store  # noqa: PLC0415 -- hardly ever needed

        return rebuild_store(self._base_dir, rebuilt, suffix, in_memory_allowed=self._in_memory_allowed)

    # Changing

    def _held(self, judge: Judge = _anything) -> AbstractContextManager[HeldStore]:
        return held_store(self._base_dir, in_memory_allowed=self._in_memory_allowed, blocks=self._blocks, judge=judge)

    @contextmanager
    def _changing(self, judge: Judge = _anything) -> Iterator[HeldStore]:
        """Have the store, and hand all marks back afterwards.

        Args:
            judge: Raises when the change is refused, while nothing has been changed.
        """
        with self._held(judge) as store:
            yield store
            try:
                store.hand_back()
            except HostError as error:
                if not store.slots.refused:
                    raise
                logger.warning("%s", error)

    def raise_mark(self, key: MarkKey, mark: Mark) -> None:
        """Move one mark up; see `MarksAdmin.raise_mark`."""
        require_in_range(mark)

        def judge(stored: StoredMarks) -> None:
            known = stored.refused.get(key)
            if known is not None and mark.level <= known.level:
                raise StateConflict(damaged_text(key, known))
            old = stored.marks.get(key)
            if old is not None and not is_above(mark, old):
                raise StateConflict(f"the mark for {key} is at {old} and moves only up, so not to {mark}")

        with self._changing(judge) as store:
            store.write({key: mark})

    def reset_mark(self, key: MarkKey, mark: Mark) -> Mark:
        """Move one mark anywhere; see `MarksAdmin.reset_mark`."""
        require_in_range(mark)

        def judge(stored: StoredMarks) -> None:
            if key in stored.refused:
                raise StateConflict(damaged_text(key, stored.refused[key]))
            if key not in stored.marks:
                raise StateConflict(f"there is no mark for {key}: nothing to reset")
            older = read_signatory_marks(self._base_dir, present=False).get(key)
            if older is not None and is_above(older, mark):
                raise StateConflict(
                    f"Signatory's older files in {self._base_dir} (watermark_v1, watermark) have the mark for {key} at "
                    f"{older}, and every start would bring it back: move them away first"
                )

        with self._changing(judge) as store:
            old = store.slots.marks[key]
            # Into both copies: if one of them is damaged, the other must not bring the old mark back.
            for _ in range(COPIES):
                store.write({key: mark})
        return old

    def adopt(self, marks: Mapping[MarkKey, Mark]) -> int:
        """Raise marks to those of another store; see `MarksAdmin.adopt`."""
        with self._changing() as store:
            # First: where this fails, a repetition does all of it.
            store.keep_known(marks)
            raised = store.take_over(marks)
            refused = {key: mark for key, mark in store.slots.refused.items() if key in marks}
        if refused:
            raise StateConflict(f"all other marks are taken over, but not these: {all_damaged_text(refused)}")
        return raised

    def export(self) -> None:
        """Hand every mark to Signatory's files; see `MarksAdmin.export`."""
        with self._held() as store:
            store.hand_back()
        logger.info("watermarks written for Signatory", extra=fields(base_dir=self._base_dir))

    def retire(self, note: Callable[[SignatoryFolder], None] = SignatoryFolder.note_forgotten) -> None:
        """Leave every mark in Signatory's files, and put the store aside; see `MarksAdmin.retire`.

        Args:
            note: Notes where the marks are from now on.
        """
        with held_folder(self._base_dir) as claim, reporting(self._path), _writing(self._path) as file:
            if file is None:
                raise StateConflict(f"there is no watermark store at {self._path}: nothing to migrate")
            require_replaceable(self._path)
            stored = stored_marks(read_image(file))
            if stored.refused:
                raise StateConflict(all_damaged_text(stored.refused))
            claim()
            self._folder.save(stored.marks)
            note(self._folder)
            try:
                self._path.replace(self._path.with_name(RETIRED_NAME))
            except OSError:
                self._folder.begin()
                raise
            fsync_directory(self._base_dir)


def marks_left_in(base_dir: Path) -> dict[MarkKey, Mark]:
    """Return the marks of another folder, of a host or of Signatory, in whatever form; both must have ended for good.

    Raises:
        ConfigError: There are none, they are not whole, or a process has them.
        StoreUnavailable: They cannot be read.
    """
    path, old_path, folder = store_path(base_dir), old_store_path(base_dir), SignatoryFolder(base_dir)
    with held_folder(base_dir), reporting(path), _writing(path) as file:
        require_remembered(folder)
        marks = folder.read()
        if file is not None:
            stored = stored_marks(read_image(file))
            if stored.refused:
                raise StateConflict(all_damaged_text(stored.refused))
            marks = union(marks, stored.marks)
        elif folder.left_behind and state_of(old_path) is not OldStore.COUNTS:
            raise StateConflict(missing_text(base_dir, folder))
        if state_of(old_path) is OldStore.COUNTS:
            marks = union(marks, read_old_marks(old_path, folder))
    if not marks:
        raise StateConflict(f"{base_dir} has no watermarks, neither {STORE_NAME} nor {FOLDER}: name another base_dir")
    return marks


@contextmanager
def _writing(path: Path) -> Iterator[PosixBlocks | None]:
    """Open a store and lock it; None when there is none."""
    try:
        file = PosixBlocks.writing(path)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        file.close()


def _read(path: Path, *, settled: bool) -> Image | None:
    try:
        file = PosixBlocks.reading(path)
    except FileNotFoundError:
        return None
    try:
        return read_image(file, settled=settled)
    finally:
        file.close()
