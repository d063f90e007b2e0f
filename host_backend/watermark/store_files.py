"""Which files a store of marks consists of, and who has them.

- A store may be reached by a symbolic link. File, log and lock are those of the real file, where SQLite has its log;
  Signatory's files are those of the folder by which it was reached.
- Whoever has a store holds the lock of that folder and, if the real file lies elsewhere, the lock beside it: two
  folders that lead to one file exclude each other.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from host_backend.durable import holder_of, locked, real_path
from host_backend.errors import ConfigError, StoreUnavailable

#: Name of the file in the host's folder.
STORE_NAME = "watermark.sqlite"
#: What to do about a store that is damaged.
DAMAGED_ADVICE = "restore it, then raise its marks above everything signed since (`enclave-host watermark raise`)"

#: Which file and which log are there, and how they look.
Footprint = tuple[tuple[int, ...], tuple[int, ...]]


def log_of(real: Path) -> Path:
    """Return SQLite's log of a file; of a link it has none."""
    return real.with_name(f"{real.name}-wal")


def folder_lock(path: Path) -> Path:
    """Return the lock of the folder by which a store is reached, whether there is a store or not."""
    return real_path(path.with_suffix(".lock"))


def _locks(path: Path, real: Path) -> Iterator[Path]:
    own, beside = folder_lock(path), folder_lock(real)
    yield own
    if beside != own:
        yield beside


@contextmanager
def exclusively(path: Path) -> Iterator[Path]:
    """Keep every other process of ours out of the file; errors of SQLite and the disk become ours.

    Yields:
        The real file, which is what was locked; links may be turned meanwhile.

    Raises:
        ConfigError: Another process has it; or what is inside found the file not sound.
        StoreUnavailable: What is inside, or the lock, could not be read or written.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder: make it, or correct base_dir")
    with reporting(path), ExitStack() as locks:
        real = real_path(path)
        if not real.parent.is_dir():
            raise ConfigError(f"{real.parent} is not a folder: mount what belongs there, or correct the link {path}")
        for lock in _locks(path, real):
            locks.enter_context(locked(lock))
        yield real


def process_of(path: Path) -> int | None:
    """Return the process that has a store, by whatever folder; None when none has; takes no lock.

    Raises:
        StoreUnavailable: Its links lead nowhere.
    """
    with reporting(path):
        holders = [holder_of(lock) for lock in _locks(path, real_path(path))]
    return next((holder for holder in holders if holder is not None), None)


def footprint(path: Path, log: Path) -> Footprint | None:
    """Return which file and which log are there, and how they look; None when either is missing.

    Args:
        path: The file, by the path at which it is looked for: a link that was turned shows.
        log: The log of the real file.
    """
    try:
        stats = [file.stat() for file in (path, log)]
    except FileNotFoundError:
        return None
    identity = tuple(number for stat in stats for number in (stat.st_dev, stat.st_ino))
    look = tuple(number for stat in stats for number in (stat.st_size, stat.st_mtime_ns))
    return identity, look


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into ours, which name the file."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreUnavailable(
            f"watermark store {path}: {error}; look at the disk and at who may write there"
        ) from error
    except sqlite3.Error as error:
        raise ConfigError(f"{path} is not a sound watermark store ({error}): {DAMAGED_ADVICE}") from error
