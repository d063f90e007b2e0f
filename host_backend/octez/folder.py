"""The folder of octez-signer (`~/.tezos-signer`, its `--base-dir`), read and never changed: JSON files, under Octez' lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host_backend import strict_json
from host_backend.bounded_file import read_bounded
from host_backend.durable import record_locked
from host_backend.errors import ConfigError, StoreUnavailable, reason_of
from host_backend.json_entry import Entry

#: Bytes of a file: keys and marks of thousands of bakers.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: Seconds that Octez may have its lock: it signs under it.
LOCK_WAIT_S = 10.0
#: The file that Octez locks, from the first key on.
LOCK_NAME = "wallet_lock"


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turn errors of the system into ours, which name what cannot be read."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{place} cannot be read: {reason_of(error)}") from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold Octez' lock on a folder while its files are read or written.

    Raises:
        ConfigError: There is no such folder.
        StoreUnavailable: It cannot be looked at, or Octez has held the lock for long.
    """
    with reading(folder):
        there = folder.is_dir()
    if not there:
        raise ConfigError(f"{folder} is not a folder: name the one that octez-signer had as --base-dir")
    with record_locked(folder / LOCK_NAME, LOCK_WAIT_S):
        yield


def read_files(folder: Path, names: tuple[str, ...]) -> list[Entry]:
    """Return the contents of those files that exist, in order; the folder is `held`.

    Raises:
        ConfigError: A file is not JSON, or too large.
        StoreUnavailable: One cannot be read.
    """
    return [_parsed(folder / name) for name in names if _is_there(folder / name)]


def _is_there(file: Path) -> bool:
    """Tell whether a file is there, be it a link that leads nowhere: what that should lead to may have marks."""
    with reading(file):
        try:
            file.lstat()
        except FileNotFoundError:
            return False
    return True


def read_file(file: Path) -> Entry:
    """Return the content of a file; see `read_files`."""
    return _parsed(file)


def _parsed(file: Path) -> Entry:
    with reading(file):
        data = read_bounded(file, MAX_FILE_BYTES, regular=True)
    if data is None:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes, too large for a file of Octez'")
    try:
        return Entry(file, "", strict_json.loads(data))
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}: not a file of Octez': not JSON, or a name occurs twice") from None
