"""YAML as nodes that know their lines: what libyaml reads, within bounds.

- A scalar is the text as written: `no`, `0x1F` and `1:30` are texts. Only null is not.
- Nodes stay within `MAX_DEPTH` and `MAX_VALUES`, which hold as if every alias were written out.
- Lines end where an editor shows that they end: a comment must not hide a policy behind another character.
- Errors quote no word of the file: a password may have met YAML's syntax.

Source: libyaml, of which Signatory's library is a translation into Go; YAML 1.2, 10.3.2, for null.
"""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from yaml.error import MarkedYAMLError
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    MappingStartEvent,
    ScalarEvent,
    StreamEndEvent,
)
from yaml.reader import ReaderError

from host_backend.errors import ConfigError

try:
    from yaml._yaml import CParser, Mark
except ImportError:
    raise ConfigError(
        "this PyYAML was built without libyaml: pip install --force-reinstall --only-binary :all: pyyaml"
    ) from None

#: The deepest value of the grammar, an operation that a key may sign, is at 5.
MAX_DEPTH = 32
#: Values once every alias is written out, as each of them is read: ten thousand keys with a hundred values each.
MAX_VALUES = 1_000_000

#: Ends of lines for YAML, but not for people: text behind one looks like the line before.
#: Source: YAML 1.1, 5.4, which libyaml follows.
_UNSEEN_END = re.compile("\r(?!\n)|[\x85\u2028\u2029]")

NULL = "tag:yaml.org,2002:null"
MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
#: Scalars, neither quoted nor tagged, that are not texts.
_MEANINGS = {**dict.fromkeys(("", "~", "null", "Null", "NULL"), NULL), "<<": MERGE}


class NotYaml(Exception):
    """A fault of a file, and its place; `line` is from 1."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.line = line


class Scalar:
    """A single value: its text and its tag."""

    __slots__ = ("line", "tag", "text")
    values = 1
    levels = 1

    def __init__(self, line: int, tag: str, text: str) -> None:
        self.line = line
        self.tag = tag
        self.text = text


class Collection:
    """A list or a map: its parts in order, the key of an entry before its value.

    Attributes:
        line: Where it begins, from 1.
        is_map: Whether it is a map.
        parts: What it holds.
        values: How many values it has with itself; 0 before its end is read.
        levels: How many levels it has with itself.
    """

    __slots__ = ("is_map", "levels", "line", "parts", "values")

    def __init__(self, line: int, *, is_map: bool) -> None:
        self.line = line
        self.is_map = is_map
        self.parts: list[Node] = []
        self.values = 0
        self.levels = 1

    def entries(self) -> list[tuple["Node", "Node"]]:
        """Return the keys and values of a map."""
        return list(zip(self.parts[::2], self.parts[1::2], strict=True))


Node: TypeAlias = Scalar | Collection


def read_nodes(data: bytes) -> Node | None:
    """Return the top node of a file; None where it is empty.

    Args:
        data: UTF-8, or UTF-16 with its mark at the beginning.

    Raises:
        NotYaml: It is no YAML, has several documents, or goes beyond the bounds.
    """
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotYaml(error.reason, data.count(b"\n", 0, error.start) + 1) from None
    if unseen := _UNSEEN_END.search(text):
        line = text.count("\n", 0, unseen.start()) + 1
        raise NotYaml(f"U+{ord(unseen[0]):04X} ends a line of YAML and looks like none: remove it", line)
    try:
        return _Composer(text).top()
    except MarkedYAMLError as error:
        mark = cast("Mark", error.problem_mark)
        # The library's own words name no tab.
        is_tab = text.startswith("\t", mark.index)
        problem = "a tab stands where YAML takes spaces only" if is_tab else str(error.problem)
        raise _at(mark, problem) from None
    except ReaderError as error:
        raise NotYaml(error.reason, text.encode().count(b"\n", 0, error.position) + 1) from None


def _at(mark: Mark, problem: str) -> NotYaml:
    return NotYaml(f"{problem} (column {mark.column + 1})", mark.line + 1)


class _Composer:
    """Makes nodes of the library's events."""

    def __init__(self, text: str) -> None:
        #: Events, the classes of which the library does not tell apart in its types.
        self._next: Callable[[], Any] = CParser(text).get_event
        self._anchors: dict[str, Node] = {}
        self._values = 0

    def top(self) -> Node | None:
        """Return the only document."""
        self._next()
        if isinstance(self._next(), StreamEndEvent):
            return None
        node = self._node(self._next(), 1)
        self._next()
        if not isinstance(end := self._next(), StreamEndEvent):
            raise _at(end.start_mark, "found another document")
        return node

    def _node(self, event: Any, level: int) -> Node:
        if isinstance(event, AliasEvent):
            return self._repeated(event, level)
        self._add(event, level, 1)
        line = event.start_mark.line + 1
        if isinstance(event, ScalarEvent):
            node: Node = Scalar(line, _tag(event), event.value)
        else:
            node = Collection(line, is_map=isinstance(event, MappingStartEvent))
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if isinstance(node, Collection):
            self._fill(node, level)
        return node

    def _fill(self, node: Collection, level: int) -> None:
        """Read the parts of a collection, and its end."""
        before = self._values - 1
        while not isinstance(event := self._next(), CollectionEndEvent):
            part = self._node(event, level + 1)
            node.parts.append(part)
            node.levels = max(node.levels, 1 + part.levels)
        node.values = self._values - before

    def _repeated(self, event: Any, level: int) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _at(event.start_mark, "found undefined alias")
        if not node.values:
            raise _at(event.start_mark, "an alias stands inside what it repeats: write the values out")
        self._add(event, level + node.levels - 1, node.values)
        return node

    def _add(self, event: Any, level: int, values: int) -> None:
        """Count what an event brings, down to a level."""
        self._values += values
        if level > MAX_DEPTH:
            raise _at(event.start_mark, "nested too deeply")
        if self._values > MAX_VALUES:
            raise _at(event.start_mark, f"more than {MAX_VALUES} values, those that aliases repeat included")


def _tag(event: ScalarEvent) -> str:
    # A lone `!` says nothing.
    if event.tag not in {None, "!"}:
        # `!!null` before a restriction would remove it, and Signatory's library refuses it.
        if event.tag in {NULL, MERGE} and _MEANINGS.get(event.value) != event.tag:
            raise _at(cast("Mark", event.start_mark), "the tag of a value says that it is something else")
        return event.tag
    plain, _ = event.implicit
    return _MEANINGS.get(event.value, _TEXT) if plain or event.tag else _TEXT
