"""A table of a TOML file, read strictly: every refusal names the file and the dotted path, and no field goes unread."""

from collections.abc import Iterator, Mapping

from enclave_signer.errors import ConfigError

#: Names of cloud resources, addresses and paths are far shorter.
MAX_TEXT_CHARS = 1024
#: Entries of one list: an image has a few keys and providers.
MAX_ENTRIES = 64


class TomlTable:
    """Fields of one table, each taken once.

    Args:
        values: As `tomllib` gives them.
        file: How refusals name the file.
        path: The dotted path of the table; empty for the whole file.
    """

    def __init__(self, values: Mapping[str, object], file: str, path: str = "") -> None:
        self._left = dict(values)
        self._file = file
        self._path = path

    def refused(self, name: str, text: str) -> ConfigError:
        """Return the error for a field, with the reason."""
        return ConfigError(f"{self._file}: {self._dotted(name)}: {text}")

    def has(self, name: str) -> bool:
        """Whether a field is there, and was not taken yet."""
        return name in self._left

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._left.pop(name, default)
        if type(value) is not bool:
            raise self.refused(name, "must be true or false")
        return value

    def seconds(self, name: str, least: float, most: float, default: float | None = None) -> float:
        """Return a number of seconds from `least` to `most`; the default when it is missing.

        Raises:
            ConfigError: It is missing and has no default, or something else.
        """
        value = self._left.pop(name, default)
        if value is None:
            raise self.refused(name, "is missing")
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.refused(name, f"must be a number of seconds from {least:g} to {most:g}")
        return float(value)

    def text(self, name: str) -> str:
        """Return a text that is not empty.

        Raises:
            ConfigError: It is missing, or something else.
        """
        return self._text(name, self._left.pop(name, None))

    def texts(self, name: str, *, required: bool = False) -> tuple[str, ...]:
        """Return a list of different texts; an empty one when it is missing and need not be there."""
        value = self._left.pop(name, [])
        if not isinstance(value, list) or len(value) > MAX_ENTRIES:
            raise self.refused(name, f"must be a list of at most {MAX_ENTRIES} texts")
        texts = tuple(self._text(f"{name}[{place}]", each) for place, each in enumerate(value))
        if len(set(texts)) != len(texts):
            raise self.refused(name, "names something twice")
        if required and not texts:
            raise self.refused(name, "must name at least one")
        return texts

    def table(self, name: str) -> "TomlTable":
        """Return an inner table.

        Raises:
            ConfigError: It is missing, or something else.
        """
        value = self._left.pop(name, None)
        if not isinstance(value, dict):
            raise self.refused(name, "must be a table" if value is not None else "is missing")
        return TomlTable(value, self._file, self._dotted(name))

    def tables(self, name: str) -> Iterator["TomlTable"]:
        """Yield the tables of a list, which may be missing."""
        value = self._left.pop(name, [])
        if not isinstance(value, list) or len(value) > MAX_ENTRIES or not all(isinstance(each, dict) for each in value):
            raise self.refused(name, f"must be a list of at most {MAX_ENTRIES} tables")
        for place, each in enumerate(value):
            yield TomlTable(each, self._file, f"{self._dotted(name)}[{place}]")

    def end(self) -> None:
        """Do nothing if every field was taken.

        Raises:
            ConfigError: An unknown one is left.
        """
        for name in self._left:
            raise self.refused(name[:MAX_TEXT_CHARS], "is not known here")

    def _dotted(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _text(self, name: str, value: object) -> str:
        if value is None:
            raise self.refused(name, "is missing")
        if not isinstance(value, str) or not value or len(value) > MAX_TEXT_CHARS or not value.isprintable():
            raise self.refused(name, f"must be a text of 1 to {MAX_TEXT_CHARS} printable characters")
        return value
