"""Where a watermark store lies: its names, its locks, and the file system below it.

- A host has the folder, by the lock that version 0.1 takes too; and the store, by a lock on the file's own inode
  (`blocks`), which holds through hard links and through a mount of the file alone.
- Until a store was found whole and its holder claims the folder, nothing is written: a refused start leaves no trace.
- Marks need a disk that keeps what it has synced. File systems of a network or of another program do not promise that;
  those in memory forget at a restart.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host_backend.durable import Claim, create_folder, holder_of, locked_quietly, real_path
from host_backend.errors import ConfigError, StateConflict, StoreUnavailable, reason_of
from host_backend.watermark.file.opening import Damage

#: Name of the store in the host's folder, and that of version 0.1.
STORE_NAME = "watermark.marks"
OLD_STORE_NAME = "watermark.sqlite"
LOCK_NAME = "watermark.lock"

MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"ocfs2", "orangefs", "smb3", "smbfs", "virtiofs"}
)
_IN_MEMORY = frozenset({"devtmpfs", "hugetlbfs", "ramfs", "tmpfs"})
_OVERLAY = frozenset({"aufs", "overlay"})

#: How to leave every "no start" that damage causes.
REBUILD = "`enclave-host watermark rebuild --above-level N`, N being at or above every level that may have been signed"


def store_path(base_dir: Path) -> Path:
    """Return the path of the store of a folder; it may be a symbolic link."""
    return base_dir / STORE_NAME


def folder_lock(base_dir: Path) -> Path:
    """Return the lock of a folder."""
    return real_path(base_dir / LOCK_NAME)


def make_base_dir(base_dir: Path) -> None:
    """Make the folder of a host, durably, where nothing has its name.

    Raises:
        StoreUnavailable: It cannot be made.
    """
    try:
        if not base_dir.exists():
            create_folder(base_dir)
    except OSError as error:
        raise StoreUnavailable(f"base_dir {base_dir} cannot be made: {reason_of(error)}") from error


@contextmanager
def held_folder(base_dir: Path) -> Iterator[Claim]:
    """Keep every other process of ours, and of version 0.1, out of a folder; yields what to call before writing there.

    Raises:
        LockHeld: Another process has it.
        ConfigError: It is not a folder.
        StoreUnavailable: It cannot be looked at, or the lock could not be taken.
    """
    with reporting(store_path(base_dir)):
        if not base_dir.is_dir():
            raise ConfigError(f"{base_dir} is not a folder: make it, or correct base_dir")
        with locked_quietly(folder_lock(base_dir)) as claim:
            yield claim


def process_of(base_dir: Path) -> int | None:
    """Return the process that has a folder's marks, by whatever path; None when none has; takes no lock.

    Raises:
        StoreUnavailable: Its links lead nowhere.
    """
    with reporting(store_path(base_dir)):
        holders = [holder_of(path) for path in (folder_lock(base_dir), real_path(store_path(base_dir)))]
    return next((holder for holder in holders if holder is not None), None)


@contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn damage, and errors of the disk, into ours, which name the store."""
    try:
        yield
    except Damage as damage:
        raise StateConflict(
            f"watermark store {path}: {damage}: nothing is signed on it; rebuild it with {REBUILD}"
        ) from damage
    except OSError as error:
        where = "" if error.filename in (None, str(path)) else f"{error.filename}: "
        raise StoreUnavailable(
            f"watermark store {path}: {where}{reason_of(error)}; look at the disk and at who may write there"
        ) from error


def require_file_system(path: Path, *, in_memory_allowed: bool) -> str | None:
    """Pass when the file system below a store can keep marks; return what to be warned of, or None.

    Args:
        path: The store; it need not be there.
        in_memory_allowed: Whether a file system in memory will do.

    Raises:
        ConfigError: It cannot.
        StoreUnavailable: The links of the path lead nowhere.
    """
    with reporting(path):
        kind = file_system_of(real_path(path))
    if kind in _NETWORK or kind.partition(".")[0] in {"fuse", "fuseblk"}:
        raise ConfigError(
            f"{path} is on a file system of type {kind}, which does not promise to keep what it has synced: use a local disk"
        )
    if kind in _IN_MEMORY:
        if not in_memory_allowed:
            raise ConfigError(
                f"{path} is on a file system in memory ({kind}), which is empty after a restart: use a local disk; for "
                "trials with keys that never bake, watermark.config.allow_memory_file_system: true"
            )
        return f"{path} is on a file system in memory ({kind}): its marks are forgotten at a restart of the machine"
    if kind in _OVERLAY:
        return f"{path} is in the layer of a container ({kind}): its marks go with the container; mount a volume there"
    return None


def file_system_of(real: Path) -> str:
    """Return the type of the file system that a file is on, or would be; "unknown" where the system does not say.

    Args:
        real: Its path, behind all links.

    Source: proc_pid_mountinfo(5).
    """
    kind, depth = "unknown", -1
    for point, mounted in _mounts():
        # Of several mounts at one place the last one counts.
        if (point == real or point in real.parents) and len(point.parts) >= depth:
            kind, depth = mounted, len(point.parts)
    return kind


def is_mount_point(real: Path) -> bool:
    """Tell whether a file is mounted as a file of its own."""
    return any(point == real for point, _ in _mounts())


def require_replaceable(path: Path) -> None:
    """Pass when another file can be put in the place of a store, or it can be given another name.

    Raises:
        ConfigError: It is mounted as a file of its own.
    """
    if is_mount_point(real_path(path)):
        raise StateConflict(
            f"{path} is mounted as a file of its own and cannot be replaced there: run this where the file itself lies, "
            "and mount its folder instead"
        )


def _mounts() -> Iterator[tuple[Path, str]]:
    try:
        lines = os.fsdecode(MOUNTS.read_bytes()).splitlines()
    except OSError:
        return
    for line in lines:
        # 36 35 98:0 /root /where rw,noatime shared:1 - ext4 /dev/sda1 rw
        before, _, after = line.partition(" - ")
        words, kinds = before.split(" "), after.split(" ")
        if len(words) >= 5 and kinds[0]:
            yield Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])), kinds[0]
