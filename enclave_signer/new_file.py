"""Making a file with a secret: whole and durable before it has its name, for its user alone."""

import os
import secrets
from pathlib import Path


def write_new_file(path: Path, data: bytes) -> None:
    """Make a file of mode 0600, never in place of another one; a crash leaves all of it, or no file of that name.

    Raises:
        FileExistsError: There is a file of that name.
        OSError: It cannot be made.
    """
    # What a crash leaves behind must not be in the way of the next start, whose process may have the same number.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(unfinished, path)
    finally:
        unfinished.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
