"""What is found of the marks from outside: read only, without a lock, and without a trace."""

from dataclasses import dataclass
from pathlib import Path

from host_backend.durable import real_path
from host_backend.errors import ConfigError
from host_backend.watermark.signatory_files import SignatoryFolder
from host_backend.watermark.sqlite_marks import forgotten_text, read_marks, require_log
from host_backend.watermark.store_files import STORE_NAME, process_of


@dataclass(frozen=True, slots=True)
class FoundMarks:
    """What is in a folder.

    Attributes:
        count: How many marks there are; None when there is no store.
        waiting: Marks of Signatory's that the first start will make a store of.
        host: The process that has the folder; None when none does.
        crashed: Whether the last host did not end in order.
    """

    count: int | None
    waiting: int
    host: int | None
    crashed: bool


def inspect_marks(base_dir: Path, *, in_memory: bool) -> FoundMarks:
    """Look at the marks of a folder; a host may be running on it.

    Args:
        base_dir: The folder.
        in_memory: Whether the configuration has them kept in memory.

    Raises:
        ConfigError: The store, or a file of Signatory's, is not sound, or a part of it is missing.
        StoreUnavailable: It could not be read.
    """
    path, folder = base_dir / STORE_NAME, SignatoryFolder(base_dir)
    host = process_of(path)
    crashed = host is None and folder.left_behind
    waiting = len(folder.read())
    if folder.forgotten and not in_memory:
        raise ConfigError(forgotten_text(folder))
    if not path.exists():
        return FoundMarks(None, waiting, host, crashed)
    if crashed and not in_memory:
        require_log(real_path(path), folder)
    return FoundMarks(len(read_marks(path)), 0, host, crashed)
