"""The folder of a first look: made, held by one run at a time, and found again after it was moved."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host_backend.config import load_config
from host_backend.errors import reason_of

#: Within the folder: held while one of the programs lives; names the process that started them.
LOCK = "running.lock"
#: Where the host keeps its files, within the folder.
BASE = "host"


class StartFailed(Exception):
    """There is nothing running; the text says why, and what to do."""


@contextmanager
def held_folder(folder: Path) -> Iterator[int]:
    """Make a folder if it is not there, and hold it; yields the descriptor that holds it, for children to inherit.

    Where the run that had it was killed, this waits until its programs have ended, too.

    Raises:
        StartFailed: It cannot be written to, or a run has it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartFailed(
            f"{folder} cannot be written to: {reason_of(error)}; name another folder: make run STATE=FOLDER"
        ) from error
    try:
        _hold(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _hold(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode().strip()
        if holder and Path(f"/proc/{holder}").exists():
            raise StartFailed(
                f"it runs already, as process {holder}, with {folder}: stop it with Ctrl-C there, or kill {holder}; a second "
                "one beside it needs a folder of its own: make run STATE=FOLDER"
            ) from None
        # Killed: its programs end by themselves, in order.
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def follow_folder(folder: Path, config_file: Path) -> None:
    """Update the folder's path in its configuration if it was moved.

    Raises:
        StartFailed: It was not moved, but copied: two folders would sign with the same keys.
        ConfigError: The configuration cannot be used.
    """
    if not config_file.exists():
        return
    base_dir = load_config(config_file).base_dir
    if base_dir == folder / BASE or base_dir.name != BASE or not (folder / BASE).is_dir():
        return
    if base_dir.exists():
        raise StartFailed(
            f"{config_file} names {base_dir}, which is there: this is a copy, and two copies of a key must never sign. "
            f"Go on there, or begin here without {folder}"
        )
    config_file.write_text(config_file.read_text().replace(str(base_dir.parent), str(folder)))
