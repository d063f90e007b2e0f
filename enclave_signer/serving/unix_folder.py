"""The folder of a Unix socket: private, or as open as the image's configuration has it, and for one daemon alone."""

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from enclave_signer.addresses import UnixAddress
from enclave_signer.errors import AddressUnavailable, ConfigError
from enclave_signer.rights_config import UnixSocketConfig

#: Clients that the kernel keeps waiting while the loop is busy.
BACKLOG = 512


def lock(address: UnixAddress) -> int:
    """Return what keeps the folder for this process while it is open.

    Raises:
        AddressUnavailable: Another process has it.
        OSError: It cannot be opened.
    """
    held = os.open(address.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise _refused(address, "another process is listening in that folder", AddressUnavailable) from None
    except BaseException:
        os.close(held)
        raise
    return held


def bound(address: UnixAddress, access: UnixSocketConfig | None = None) -> socket.socket:
    """Return a socket that listens at a path.

    Args:
        address: The path.
        access: Who can reach it; None: this user alone.

    Raises:
        ConfigError: More can reach it than that.
        OSError: It cannot be had.
    """
    listening = socket.socket(socket.AF_UNIX)
    # From the start no other user may connect, even if the folder changes.
    mask = os.umask(0o177)
    try:
        listening.settimeout(0)
        listening.bind(str(address.path))
        if access is not None:
            # Each message comes with who wrote it, also those that are written before the client is accepted.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            _open_to(address, access)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening


def make_private(address: UnixAddress, uid: int) -> None:
    """Make the folder of a socket if it is not there, and check that it is private.

    Raises:
        ConfigError: It is another user's, or others can enter it.
        OSError: It cannot be made.
    """
    folder = address.path.parent
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        whose = "is not a folder"
    elif found.st_uid != uid:
        whose = f"belongs to the user {found.st_uid}, not to {uid}, the user of this program"
    elif found.st_mode & 0o077:
        whose = "can be entered by others"
    else:
        return
    raise _refused(address, f"the folder {folder} {whose}: name one that only this program uses, with mode 0700")


def make_shared(address: UnixAddress, uid: int, access: UnixSocketConfig) -> None:
    """Make the folder of a socket that others may reach if it is not there, and check that no more can reach it.

    Raises:
        ConfigError: It is looser than configured, another user's, or the path leads through a symbolic link, or through a
            folder where others could put something else in its place.
        OSError: It cannot be made.
    """
    folder = address.path.parent
    for each in [*reversed(address.path.parents), address.path]:
        if each.is_symlink():
            raise _refused(address, f"{each} is a symbolic link: name the path that it leads to")
    for each in folder.parents:
        _check_above(address, each, uid)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if access.group is not None:
            os.chown(folder, -1, access.group)
        folder.chmod(access.folder_mode)
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(address, f"{folder} is not a folder")
    if found.st_uid != uid:
        raise _refused(
            address, f"the folder {folder} belongs to the user {found.st_uid}, not to {uid}, the user of this program"
        )
    _check_no_looser(address, folder, access.folder_mode, access)


def _check_above(address: UnixAddress, folder: Path, uid: int) -> None:
    """Check a folder above that of the socket: others must not be able to rename the folders in it.

    Raises:
        ConfigError: They can.
    """
    found = folder.stat()
    if found.st_uid not in {uid, 0}:
        raise _refused(
            address, f"{folder} belongs to the user {found.st_uid}, who could put another folder in its place"
        )
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise _refused(address, f"others can write to {folder}, and put another folder in its place")


def _check_no_looser(address: UnixAddress, path: Path, mode: int, access: UnixSocketConfig) -> None:
    found = path.stat()
    actual = stat.S_IMODE(found.st_mode) & 0o777
    if actual & ~mode:
        raise _refused(address, f"{path} has the mode {actual:04o}, looser than {mode:04o}, as the image has it")
    group = os.getegid() if access.group is None else access.group
    if actual & 0o070 and found.st_gid != group:
        raise _refused(address, f"{path} is open to the group {found.st_gid}, and not to {group}, as the image has it")
    if _has_acl(path):
        raise _refused(address, f"{path} has an access control list, which opens it to others: remove it (setfacl -b)")


def _has_acl(path: Path) -> bool:
    try:
        return any(name.startswith("system.posix_acl_") for name in os.listxattr(path))
    except OSError:
        # A file system that has none.
        return False


def _open_to(address: UnixAddress, access: UnixSocketConfig) -> None:
    """Give a new socket its mode; nothing listens there yet.

    Raises:
        ConfigError: It is looser then than it should be.
        OSError: The group is none of this process.
    """
    try:
        if access.group is not None:
            os.chown(address.path, -1, access.group)
        address.path.chmod(access.mode)
        _check_no_looser(address, address.path, access.mode, access)
    except BaseException:
        address.path.unlink()
        raise


def remove_stale(address: UnixAddress) -> None:
    """Remove the socket of a daemon that did not end in order: one without a listener, nothing else.

    Raises:
        AddressUnavailable: Another process listens there.
        ConfigError: Something else is there.
        OSError: It cannot be removed.
    """
    try:
        mode = address.path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _refused(address, "the file there is not a socket: name another path")
    with socket.socket(socket.AF_UNIX) as probe:
        # A full line of waiting clients is an answer, too: somebody is listening.
        probe.settimeout(0)
        code = probe.connect_ex(str(address.path))
    if code != errno.ECONNREFUSED:
        raise _refused(address, "another process is listening there", AddressUnavailable)
    address.path.unlink(missing_ok=True)


def identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from one that takes its place."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def _refused(
    address: UnixAddress, why: str, kind: type[ConfigError | AddressUnavailable] = ConfigError
) -> ConfigError | AddressUnavailable:
    return kind(f"cannot listen on {address}: {why}")
