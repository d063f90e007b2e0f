"""A YAML file as values that know where they stand: every error names the file, the line and the dotted path.

Source: YAML 1.2 as libyaml reads it, of which Signatory's library is a translation; a name may stand once in a map.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from host_backend.bounded_file import read_bounded
from host_backend.errors import ConfigError, reason_of
from host_backend.problems import PlacedError, Problems
from host_backend.suggestion import suggestion
from host_backend.yaml_reader import MERGE, NULL, Collection, Node, NotYaml, Scalar, read_nodes

#: A configuration of thousands of keys stays far below.
MAX_FILE_BYTES = 4 * 1024 * 1024

#: Source: YAML 1.1, which Signatory's library follows where a truth value is due.
_BOOLEANS = {**dict.fromkeys(("true", "yes", "on", "y"), True), **dict.fromkeys(("false", "no", "off", "n"), False)}


class Value:
    """One value of the file; null when `node` is None, as for an empty file."""

    __slots__ = ("_file", "_node", "_place", "_secretive", "ends_whole", "path")

    def __init__(
        self, file: Path, path: str, node: Node | None, key: Node | None = None, *, secretive: bool = False
    ) -> None:
        self._file = file
        self._node = node
        self._secretive = secretive
        # A value's place is that of its key: a null that is not written has none of its own.
        self._place = node if key is None else key
        self.path = path
        #: Of the top value: whether the file ends with the end of a line.
        self.ends_whole = True

    def fail(self, problem: str) -> NoReturn:
        """Raise a ConfigError that names this place."""
        line = self._place.line if self._place is not None else 1
        raise PlacedError(f"{self._file}:{line}: {self.path or 'the file'}: {problem}", line)

    def secretive(self) -> "Value":
        """Return this value for a place of secrets: an unknown name in it, or below, may be a secret by a slip."""
        return Value(self._file, self.path, self._node, self._place, secretive=True)

    def without_name(self, entry: "Value") -> "Value":
        """Return an entry of this map whose errors name its line, but not the entry."""
        entry.path = f"{self.path}.…"
        return entry

    @property
    def is_null(self) -> bool:
        """Whether the value is absent or null."""
        return self._node is None or (isinstance(self._node, Scalar) and self._node.tag == NULL)

    @property
    def is_map(self) -> bool:
        """Whether the value is a map."""
        return isinstance(self._node, Collection) and self._node.is_map

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return isinstance(self._node, Collection) and not self._node.is_map

    def mapping(self) -> dict[str, "Value"]:
        """Return the entries of a map with text keys; those merged into it (`<<`) come last and replace nothing."""
        if self.is_null:
            return {}
        if not isinstance(self._node, Collection) or not self._node.is_map:
            self.fail("must be a map")
        entries: dict[str, Value] = {}
        merged: list[Value] = []
        for key_node, value_node in self._node.entries():
            if isinstance(key_node, Scalar) and key_node.tag == MERGE:
                other = self._part(self.path, value_node, key_node)
                if merged:
                    other.fail("`<<` stands here a second time: give it a list of all that it merges")
                merged = other.items() if other.is_list else [other]
                continue
            key = self._key(key_node)
            entry = self._part(f"{self.path}.{key}" if self.path else key, value_node, key_node)
            if key in entries:
                self._told(entry).fail("stands here a second time")
            entries[key] = entry
        for part in merged:
            for key, entry in part.mapping().items():
                entries.setdefault(key, entry)
        return entries

    def _part(self, path: str, node: Node, key: Node | None = None) -> "Value":
        return Value(self._file, path, node, key, secretive=self._secretive)

    def _told(self, entry: "Value") -> "Value":
        return self.without_name(entry) if self._secretive else entry

    def _key(self, node: Node) -> str:
        if not isinstance(node, Scalar):
            Value(self._file, self.path, node).fail("has a key that is not text")
        return _printable(Value(self._file, self.path, node), node.text)

    def record(self, known: Iterable[str], not_yet: Iterable[str] = ()) -> dict[str, "Value"]:
        """Return the entries of a map that may only have known fields.

        Args:
            known: Fields that mean something.
            not_yet: Fields of Signatory's grammar that this version does not have: an error, as ignoring one could
                allow what its author meant to forbid.
        """
        entries = self.mapping()
        self.check_fields(entries, tuple(known), tuple(not_yet))
        return entries

    def check_fields(self, entries: Mapping[str, "Value"], known: Sequence[str], not_yet: Sequence[str] = ()) -> None:
        """Pass when a map has known fields only; see `record`.

        Raises:
            ConfigError: With every field that is not.
        """
        with Problems() as problems:
            for name, entry in entries.items():
                with problems.catch():
                    self._check_field(name, entry, known, not_yet)

    def _check_field(self, name: str, entry: "Value", known: Sequence[str], not_yet: Sequence[str]) -> None:
        if name in not_yet:
            self._told(entry).fail(
                "this field of Signatory's configuration is not supported yet: remove it to start without it"
            )
        if name not in known:
            hint = suggestion(name, (*known, *not_yet), f"known are {', '.join(known)}")
            self._told(entry).fail(f"unknown field, {hint}")

    def items(self) -> list["Value"]:
        """Return the items of a list; null is an empty one."""
        if self.is_null:
            return []
        if not isinstance(self._node, Collection) or self._node.is_map:
            self.fail("must be a list")
        return [self._part(f"{self.path}[{index}]", node) for index, node in enumerate(self._node.parts)]

    def leaves(self) -> Iterator["Value"]:
        """Yield the single values of a value or list, nested lists included."""
        if self.is_list:
            for item in self.items():
                yield from item.leaves()
        else:
            yield self

    @property
    def is_empty(self) -> bool:
        """Whether the value is absent, null or an empty text."""
        return self.is_null or (isinstance(self._node, Scalar) and not self._node.text)

    def boolean(self) -> bool:
        """Return a truth value, in any of the spellings of YAML 1.1; null is false."""
        if self.is_null:
            return False
        if not isinstance(self._node, Scalar) or self._node.text.lower() not in _BOOLEANS:
            self.fail("must be true or false")
        return _BOOLEANS[self._node.text.lower()]

    def integer(self, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        text = self.text()
        if not (text.isascii() and text.isdecimal()) or len(text) > 18 or not least <= int(text) <= most:
            self.fail(f"must be a whole number from {least} to {most}")
        return int(text)

    def number(self, least: float, most: float) -> float:
        """Return a number within bounds."""
        text = self.text()
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) or not least <= float(text) <= most:
            self.fail(f"must be a number from {least:g} to {most:g}")
        return float(text)

    def text(self) -> str:
        """Return a text that is not empty; numbers are taken as they are written."""
        if self.is_null or not isinstance(self._node, Scalar):
            self.fail("must be a text")
        if not self._node.text:
            self.fail("must not be empty")
        return _printable(self, self._node.text)

    def lines(self) -> str:
        """Return a text that may have several lines, and is not empty."""
        if self.is_null or not isinstance(self._node, Scalar) or not self._node.text:
            self.fail("must be a text")
        return self._node.text

    def choice(self, choices: Mapping[str, str]) -> str:
        """Return one of the texts that are keys of `choices`; a value other than "" says why it cannot be used."""
        value = self.text()
        if value not in choices:
            usable = [name for name, problem in choices.items() if not problem]
            hint = suggestion(value[:40], usable, f"known are {', '.join(usable)}")
            self.fail(f"unknown value {value[:40]!r}, {hint}")
        if problem := choices[value]:
            self.fail(problem)
        return value


def given(fields: Mapping[str, Value], name: str) -> Value | None:
    """Return a field that has a value; None where it is absent or null, which means its default. Source: Signatory."""
    value = fields.get(name)
    return None if value is None or value.is_null else value


def _printable(value: Value, text: str) -> str:
    # Escapes can put NUL, line feeds and half characters into a text; no name, address or path here has them.
    if not text.isprintable():
        value.fail("must not have control characters")
    return text


def load_document(file: Path) -> Value:
    """Return the top value of a YAML file.

    Raises:
        ConfigError: The file cannot be read, is too large, or is no YAML.
    """
    try:
        data = read_bounded(file, MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {reason_of(error)}") from error
    if data is None:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes, too large for a configuration")
    try:
        node = read_nodes(data)
    except NotYaml as error:
        raise ConfigError(f"{file}:{error.line}: not readable as YAML: {error}") from None
    top = Value(file, "", node)
    top.ends_whole = not data or data.endswith((b"\n", b"\r", b"\n\0"))
    return top
