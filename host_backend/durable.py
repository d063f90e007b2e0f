"""Durable files, and locks between processes: the one place in the host that makes either.

- A file is replaced whole: a temporary file beside it, fsync, rename, fsync of the folder. A reader, or a crash, finds
  the old content or the new, never a part of either.
- A lock is an `flock` on a file of its own, gone when its holder ends, however it ends. The file stays and names its
  last holder: were it removed, two processes could each lock "the" file. Who holds it is asked of the system.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from host_backend.errors import StateConflict

#: Seconds between two tries for a lock: short beside the milliseconds for which a file is held to be rewritten.
_LOCK_RETRY_S = 0.02
#: Bytes that are synced to see how long it takes: a page of the watermark store.
_SYNC_BYTES = 4096


class LockHeld(StateConflict):
    """Another process holds the lock; the text names the folder and the process."""


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file, or make it; its content survives power loss from the moment this returns.

    Args:
        path: The file; its folder must exist. Behind a symbolic link the file is replaced, not the link, so that data
            stay on the volume the operator chose.
        data: The whole new content.
        mode: Permission bits of a new file; an existing one keeps its own bits and, where allowed, its owner.

    Raises:
        OSError: Not written and the old file is whole, unless the folder's own fsync failed: then either content may
            be found later. No temporary file is left.
    """
    with replaced(real_path(path), mode) as file:
        file.write(data)


@contextmanager
def replaced(path: Path, mode: int = 0o600, *, keep_old_as: Path | None = None) -> Iterator[BinaryIO]:
    """Give a new file to write, which takes the place of another one at the end, durably.

    Args:
        path: The file, behind all links; its folder must exist.
        mode: As for `write_durably`.
        keep_old_as: A second name for the old file, at which nothing is; None where there is no old one, or it can go.

    Raises:
        OSError: As for `write_durably`.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _take_after(file.fileno(), path, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep_old_as is not None:
            # Before the other takes its place: there is a file at the path at every moment.
            os.link(path, keep_old_as)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read it; what no disk keeps, such as a pipe that would be waited for, is an error.

    Raises:
        OSError: It is missing, cannot be read, or is no regular file.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "not a regular file")
        yield file


def real_path(path: Path) -> Path:
    """Return where a file lies, behind all symbolic links: two paths to one file must take one lock.

    Args:
        path: The file; it need not be there.

    Raises:
        OSError: Its links lead in a circle, or through what cannot be read.
    """
    # Of links in a circle, `resolve` tells in some versions of Python only, and by another error.
    with suppress(FileNotFoundError):
        path.stat()
    return path.resolve()


def free_name(wanted: Path) -> Path:
    """Return a path, or one with a number behind it, at which nothing is."""
    names = chain([wanted], (wanted.with_name(f"{wanted.name}-{number}") for number in count(2)))
    return next(name for name in names if not name.exists())


def _take_after(descriptor: int, path: Path, mode: int) -> None:
    try:
        existing = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, mode)
        return
    # Only root may give files away; for anyone else the new file is their own, as with any editor.
    with suppress(PermissionError):
        os.fchown(descriptor, existing.st_uid, existing.st_gid)
    os.fchmod(descriptor, existing.st_mode & 0o7777)


def fsync_directory(path: Path) -> None:
    """Make the names in a folder durable: files created, renamed or removed there.

    Raises:
        OSError: The folder cannot be opened, or its storage failed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder and those above it where missing, durably; existing ones stay as they are.

    Raises:
        OSError: A folder cannot be made, or a file has its name.
    """
    if path.is_dir():
        return
    create_folder(path.parent, mode)
    path.mkdir(mode, exist_ok=True)
    fsync_directory(path.parent)


#: What to call before anything is written in a folder that is held.
Claim = Callable[[], None]


@contextmanager
def locked(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock between processes (and between two holders in one process).

    Advisory: it binds only those who take it. Blocks the thread while it waits, so no event loop may wait here.

    Args:
        path: The lock file, made (0600) when missing and never removed; its folder must exist.
        wait_s: How long to wait for another holder; 0 refuses at once.

    Raises:
        LockHeld: Another process kept it for longer than that; stop that process.
        OSError: The lock file cannot be opened or written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, path, wait_s)
        _sign(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_itself(path: Path, wait_s: float) -> Iterator[None]:
    """Hold an exclusive lock on a file that is read, and then replaced: two at once would lose what one of them wrote.

    Args:
        path: The file, behind all links.
        wait_s: How long to wait for another holder.

    Raises:
        LockHeld: Another process kept it for longer than that.
        OSError: It cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _lock(descriptor, path, wait_s)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            os.close(descriptor)


@contextmanager
def locked_among_others(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file in a folder that others may write to.

    Nothing is written into the file, and no link of that name is followed: another user could have made it lead to a file
    of this one.

    Args:
        path: The lock file, made (0600) when missing and never removed.

    Raises:
        LockHeld: Another process has it.
        OSError: The lock file cannot be opened.
    """
    with ExitStack() as closing:
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        _lock_open(closing, os.open(path, flags, 0o600), path)
        yield


@contextmanager
def record_locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold a lock of the kind of `lockf`, as Octez takes it, on a file of its own; nothing is made or changed.

    Where there is no such file, or it may not be written, the holder of the lock would not be here: then there is none.

    Args:
        path: The lock file.
        wait_s: How long to wait for another holder.

    Raises:
        LockHeld: Another process kept it for longer than that.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        _lock(descriptor, path, wait_s, fcntl.lockf)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_quietly(path: Path) -> Iterator[Claim]:
    """Hold a lock as `locked` does, but change nothing before the function that it yields is called.

    A lock file that is not there is not made before that; until then the folder itself is locked.

    Args:
        path: The lock file; its folder must exist.

    Raises:
        LockHeld: Another process has it; also from the function, which makes the file.
        OSError: It cannot be opened or written.
    """
    with ExitStack() as closing, ExitStack() as until_claimed:
        _lock_open(until_claimed, os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), path)
        held: list[int] = []
        with suppress(FileNotFoundError):
            held.append(_lock_open(closing, os.open(path, os.O_RDWR | os.O_CLOEXEC), path))

        def claim() -> None:
            if not held:
                held.append(_lock_open(closing, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), path))
            _sign(held[0])
            until_claimed.close()

        yield claim


def _lock_open(closing: ExitStack, descriptor: int, path: Path) -> int:
    closing.callback(os.close, descriptor)
    _lock(descriptor, path, wait_s=0)
    return descriptor


def _sign(descriptor: int) -> None:
    """Name the holder in the lock file, for people."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def _lock(descriptor: int, path: Path, wait_s: float, lock: Callable[[int, int], object] = fcntl.flock) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if time.monotonic() >= deadline:
                raise LockHeld(_held_text(path)) from error
            time.sleep(_LOCK_RETRY_S)
        else:
            return


def _held_text(path: Path) -> str:
    holder = holder_of(path) or holder_of(path.parent)
    who = "another process" if holder is None else f"process {holder}"
    return f"{path.parent} is in use by {who} (lock file {path.name}): stop it first, or use another folder"


def holder_of(path: Path) -> int | None:
    """Return the process that holds a lock on a file, or None; takes no lock, so that it disturbs no other process.

    Source: proc_locks(5). Where the system does not list its locks, none seems to be held.
    """
    try:
        return holder_of_inode(path.stat())
    except OSError:
        return None


def holder_of_inode(stat: os.stat_result) -> int | None:
    """Return the process that holds a lock on a file that looks so; see `holder_of`."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found: dict[str, int] = {}
    for words in map(str.split, lines):
        # 1: FLOCK ADVISORY WRITE 4711 08:01:123456 0 EOF
        device, _, inode = words[5].rpartition(":") if len(words) > 5 else ("", "", "")
        if words[1:2] == ["FLOCK"] and inode == str(stat.st_ino) and int(words[4]) > 0:
            found[device] = int(words[4])
    # Devices have other numbers here than the file says of itself, on some file systems: then the inode has to do.
    own = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}"
    return found.get(own, next(iter(found.values()), None) if len(found) == 1 else None)


def sync_times_s(folder: Path, count: int) -> list[float]:
    """Return how long it took, `count` times, until some bytes of a new file were on the disk; the file is removed.

    Raises:
        OSError: The folder cannot be written to.
    """
    times_s: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(bytes(_SYNC_BYTES))
            file.flush()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - begun)
    return times_s
