"""Values in JSON files of other programs, which know where they stand: every error names the file and the dotted path."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from enclave_signer.tezos import TezosError, check_public_key_hash
from host_backend.errors import ConfigError


class Entry:
    """A value in a file; no error of its own repeats a value.

    Args:
        file: The file.
        path: Where in it, as `tz1….block`; empty for all of it.
        value: As JSON gave it.
    """

    def __init__(self, file: Path, path: str, value: object) -> None:
        self._file = file
        self._path = path
        self._value = value

    def fail(self, problem: str) -> ConfigError:
        """Return the error that names the place."""
        return ConfigError(f"{self._file}: {self._path or 'the file'}: {problem}")

    @property
    def is_null(self) -> bool:
        """Whether the value is null."""
        return self._value is None

    def entries(self) -> Iterator[tuple[str, Self]]:
        """Yield the members of an object."""
        if not isinstance(self._value, dict):
            raise self.fail("must be an object")
        for name, value in self._value.items():
            yield name, type(self)(self._file, f"{self._path}.{name}" if self._path else name, value)

    def items(self) -> Iterator[Self]:
        """Yield the items of a list."""
        if not isinstance(self._value, list):
            raise self.fail("must be a list")
        for number, value in enumerate(self._value):
            yield type(self)(self._file, f"{self._path}[{number}]", value)

    def members(self) -> dict[str, Self]:
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

    def pkh(self, text: str) -> str:
        """Return a text, the name or the value of this entry, which must be a public-key hash."""
        try:
            check_public_key_hash(text)
        except TezosError as error:
            raise self.fail(f"not a public key hash: {error}") from None
        return text
