"""Files of bounded size: none is read into memory further than it may be long."""

from pathlib import Path


def read_bounded(file: Path, limit_bytes: int) -> bytes | None:
    """Return what a file holds; None where it is longer than it may be.

    Raises:
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        data = stream.read(limit_bytes + 1)
    return data if len(data) <= limit_bytes else None
