"""Files of bounded size: none is read into memory further than it may be long."""

from pathlib import Path

from host_backend.durable import open_regular


def read_bounded(file: Path, limit_bytes: int, *, regular: bool = False) -> bytes | None:
    """Return what a file holds; None where it is longer than it may be.

    Args:
        file: Which one.
        limit_bytes: How long it may be.
        regular: Whether it must be a regular file: a pipe, which an operator may name on purpose, would be waited for.

    Raises:
        OSError: It cannot be read.
    """
    with open_regular(file) if regular else file.open("rb") as stream:
        data = stream.read(limit_bytes + 1)
    return data if len(data) <= limit_bytes else None
