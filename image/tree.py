"""A folder of files as a reproducible whole: what its files are, not when and by whom they were made.

The hash of a tree is that of its archive: names in order, owners and times zero. It is the `diff_id` of the layer that is
made of it.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 512
_NAME_BYTES, _PREFIX_BYTES = 100, 155


def normalise(root: Path) -> None:
    """Give everything below a folder, and itself, the mode that it has in an image, and the time 0."""
    for path in (root, *root.rglob("*")):
        executable = path.is_dir() or path.parent.name == "bin" or path.name.startswith("ld-linux")
        path.chmod(0o755 if executable else 0o644)
    # Afterwards, as changes within a folder are changes of it.
    for path in (root, *root.rglob("*")):
        os.utime(path, (0, 0))


def size_bytes(root: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def digest(root: Path) -> str:
    """Return the SHA-256 of a tree of files and folders, in hex."""
    hashed = hashlib.sha256()
    for part in archive(root):
        hashed.update(part)
    return hashed.hexdigest()


def archive(root: Path) -> Iterator[bytes]:
    """Yield the parts of the archive. Source: Go's archive/tar, which builders of images use, in its format USTAR."""
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        if stat.S_ISDIR(status.st_mode):
            yield _header(f"{name}/", status.st_mode, 0, b"5")
        elif stat.S_ISREG(status.st_mode):
            yield _header(name, status.st_mode, status.st_size, b"0")
            yield path.read_bytes()
            yield bytes(-status.st_size % _BLOCK_BYTES)
        else:
            raise ValueError(f"{path} is neither a file nor a folder")
    yield bytes(2 * _BLOCK_BYTES)


def _header(name: str, mode: int, size: int, kind: bytes) -> bytes:
    prefix, last = "", name
    if len(name) > _NAME_BYTES:
        prefix, _, last = name.rstrip("/").rpartition("/")
        last += name[len(name.rstrip("/")) :]
    if len(last) > _NAME_BYTES or len(prefix) > _PREFIX_BYTES:
        raise ValueError(f"{name} is too long a name")
    zero = b"0000000\0"
    front = (
        last.encode().ljust(_NAME_BYTES, b"\0") + b"%07o\0" % mode + zero + zero + b"%011o\0" % size + b"0" * 11 + b"\0"
    )
    back = kind + bytes(100) + b"ustar\x0000" + bytes(64) + zero + zero + prefix.encode().ljust(_PREFIX_BYTES, b"\0")
    back += bytes(12)
    checksum = sum(front) + sum(back) + 8 * ord(" ")
    return front + b"%06o\0 " % checksum + back
