"""The folder of octez-signer (`~/.tezos-signer`, its `--base-dir`), read and never changed: JSON files, under Octez' lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host_backend import strict_json
from host_backend.durable import record_locked
from host_backend.errors import ConfigError, StoreUnavailable

#: Bytes of a file: keys and marks of thousands of bakers.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: Seconds that Octez may have its lock: it signs under it.
LOCK_WAIT_S = 10.0
#: The file that Octez locks, from the first key on.
LOCK_NAME = "wallet_lock"


class Entry:
    """A value in a file, which knows where it stands; no error of its own repeats a value."""

    def __init__(self, file: Path, path: str, value: object) -> None:
        self._file = file
        self._path = path
        self._value = value

    def fail(self, problem: str) -> ConfigError:
        """Return the error that names the place."""
        return ConfigError(f"{self._file}: {self._path or 'the file'}: {problem}")

    def entries(self) -> Iterator[tuple[str, "Entry"]]:
        """Yield the members of an object."""
        if not isinstance(self._value, dict):
            raise self.fail("must be an object")
        for name, value in self._value.items():
            yield name, Entry(self._file, f"{self._path}.{name}" if self._path else name, value)

    def items(self) -> Iterator["Entry"]:
        """Yield the items of a list."""
        if not isinstance(self._value, list):
            raise self.fail("must be a list")
        for number, value in enumerate(self._value):
            yield Entry(self._file, f"{self._path}[{number}]", value)

    def members(self) -> dict[str, "Entry"]:
        """Return the members of an object by name."""
        return dict(self.entries())

    def text(self) -> str:
        """Return a text."""
        if not isinstance(self._value, str):
            raise self.fail("must be a text")
        return self._value

    def integer(self) -> int:
        """Return a whole number."""
        if type(self._value) is not int:
            raise self.fail("must be a whole number")
        return self._value


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Turn errors of the system into ours, which name what cannot be read."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{place} cannot be read: {error.strerror}") from error


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
    with reading(file), file.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes, too large for a file of Octez'")
    try:
        return Entry(file, "", strict_json.loads(data))
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}: not a file of Octez': not JSON, or a name occurs twice") from None
