"""What is done to the marks of a folder beside signing: another driver, another folder, a mark that was raised too far.

- Everything here needs the folder for itself, and changes nothing while a host has it.
- A driver that is changed in the configuration alone stops the start; `watermark migrate` moves the marks.
- Marks in memory are forgotten at every stop. From their first start on, a note in Signatory's folder says so: neither
  Signatory nor a file store starts there again as if nothing had been signed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from host_backend.durable import fsync_directory, locked
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.rule import MAX_LEVEL, Mark, MarkKey, in_range, is_above
from host_backend.watermark.signatory_files import FOLDER, SignatoryFolder, merged, read_signatory_marks
from host_backend.watermark.sqlite_marks import (
    close_marks,
    lower_mark,
    open_marks,
    read_all,
    require_log,
    write_marks,
)
from host_backend.watermark.store_files import STORE_NAME, exclusively, folder_lock, log_of, reporting

#: What becomes of a file store's name when its marks were handed over.
_MIGRATED_SUFFIX = ".migrated"
#: Marks written by one statement; see `write_marks`.
_MARKS_AT_ONCE = 1000


@contextmanager
def kept_in_memory(base_dir: Path) -> Iterator[dict[MarkKey, Mark]]:
    """Have a folder for a host that keeps its marks in memory; yields those to begin with, Signatory's.

    Raises:
        ConfigError: The folder has a store, or lost one, or another process has it; or Signatory's marks cannot be read.
        StoreUnavailable: It cannot be read or written.
    """
    path, folder = base_dir / STORE_NAME, SignatoryFolder(base_dir)
    if not base_dir.is_dir():
        raise ConfigError(f"{base_dir} is not a folder: make it, or correct base_dir")
    with ExitStack() as stack:
        with reporting(path):
            stack.enter_context(locked(folder_lock(path)))
            if path.exists():
                raise ConfigError(
                    f"{path} has marks, and watermark.driver is mem, which would forget them: write `driver: file`, or "
                    "give that store up with `enclave-host watermark migrate`"
                )
            if folder.left_behind and not folder.forgotten:
                raise ConfigError(
                    f"the last host on {base_dir} did not end in order, and its watermark store is gone: put it back "
                    "and write `driver: file`"
                )
            marks = folder.read()
            folder.note_forgotten()
        yield marks


def give_up_store(base_dir: Path) -> int:
    """Hand a file store's marks to Signatory's files, where `mem` begins, and put the store aside.

    Returns:
        How many marks there are.

    Raises:
        ConfigError: There is no store, marks may be lost, or another process has the folder.
        StoreUnavailable: Not done; the store is as it was, and the command may be repeated.
    """
    path, folder = base_dir / STORE_NAME, SignatoryFolder(base_dir)
    with exclusively(path) as real:
        if not real.exists():
            raise ConfigError(f"there is no watermark store at {path}: nothing to migrate")
        if folder.forgotten:
            # An earlier try ended before the store was put aside.
            connection, marks = open_marks(real)
            connection.close()
        else:
            marks = read_all(real, folder)
        _require_no_log(real)
        folder.save(marks)
        folder.note_forgotten()
        path.replace(path.with_name(STORE_NAME + _MIGRATED_SUFFIX))
        fsync_directory(base_dir)
    return len(marks)


def take_over(base_dir: Path, source: Path) -> int:
    """Raise the marks of a folder to those of another one, of whatever form; its own marks stay there.

    Returns:
        How many marks were raised.

    Raises:
        ConfigError: Either folder has no marks that are whole, or another process has it.
        StoreUnavailable: Not known to be done; the command may be repeated.
    """
    if source.resolve() == base_dir.resolve():
        raise ConfigError(f"{source} is base_dir itself: nothing to migrate")
    theirs = _marks_of(source)
    if not theirs:
        raise ConfigError(f"{source} has no watermarks, neither {STORE_NAME} nor {FOLDER}: name another base_dir")
    path, folder = base_dir / STORE_NAME, SignatoryFolder(base_dir)
    with exclusively(path) as real:
        require_log(real, folder)
        connection, marks = open_marks(real)
        try:
            folder.note_opened()
            wanted = {key: merged(marks.get(key), mark) for key, mark in theirs.items()}
            raised = [entry for entry in wanted.items() if _is_higher(entry[1], marks.get(entry[0]))]
            for start in range(0, len(raised), _MARKS_AT_ONCE):
                write_marks(connection, dict(raised[start : start + _MARKS_AT_ONCE]))
            for key, mark in wanted.items():
                if mark != marks.get(key) and not _is_higher(mark, marks.get(key)):
                    lower_mark(connection, key, mark)  # two messages at one place: its digest goes
        finally:
            close_marks(connection, real, folder)
    return len(raised)


def _is_higher(mark: Mark, stored: Mark | None) -> bool:
    return stored is None or is_above(mark, stored)


def _marks_of(base_dir: Path) -> dict[MarkKey, Mark]:
    path, folder = base_dir / STORE_NAME, SignatoryFolder(base_dir)
    if not base_dir.is_dir():
        raise ConfigError(f"{base_dir} is not a folder: name another base_dir")
    if path.exists() or folder.left_behind:
        with exclusively(path) as real:
            return read_all(real, folder)
    return read_signatory_marks(base_dir)


def reset_mark(base_dir: Path, key: MarkKey, level: int, round_: int) -> Mark:
    """Move one mark to any place, also down, here and in Signatory's files; nothing is signed at that place itself.

    Returns:
        The mark that was there.

    Raises:
        ConfigError: There is no such mark; Signatory's older files would bring the old one back; marks may be lost; or
            another process has the folder.
        StoreUnavailable: Not known to be done; the command may be repeated.
    """
    mark = Mark(level, round_, None)
    if not in_range(mark):
        raise ConfigError(f"{mark}: both must be from 0 to {MAX_LEVEL}")
    path, folder = base_dir / STORE_NAME, SignatoryFolder(base_dir)
    with exclusively(path) as real:
        marks = read_all(real, folder)
        old = marks.get(key)
        if old is None:
            raise ConfigError(f"there is no mark for {key}: nothing to reset")
        older = read_signatory_marks(base_dir, present=False).get(key)
        if older is not None and is_above(older, mark):
            raise ConfigError(
                f"Signatory's older files in {base_dir} (watermark_v1, watermark) have the mark for {key} at {older}, "
                "and every start would bring it back: move them away first"
            )
        connection, stored = open_marks(real)
        try:
            folder.note_opened()
            if key in stored:
                lower_mark(connection, key, mark)
            else:
                write_marks(connection, {key: mark})
        finally:
            close_marks(connection, real, folder)
        folder.hand_back({**marks, key: mark})
    return old


def _require_no_log(path: Path) -> None:
    if log_of(path).exists():
        raise StoreUnavailable(f"{path} is open in another program, perhaps `watermark show`: stop it, try again")
