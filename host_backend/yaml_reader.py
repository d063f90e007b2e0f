"""YAML's words and nodes as ruamel.yaml reads them, with bounds, and with tabs where YAML takes them.

- A tab is white space between words, before a comment and at a line's end. It never indents: there it is an error.
- Nodes stay within `MAX_DEPTH` and `MAX_VALUES`.

Source: YAML 1.2, 6.2 and 6.3; libyaml's scanner, which Signatory's library follows.
"""

from functools import cached_property

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import StreamMark
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.parser import Parser
from ruamel.yaml.scanner import Scanner, ScannerError

#: The deepest value of the grammar, an operation that a key may sign, is at 5.
MAX_DEPTH = 32
#: Values once every alias is written out, as each of them is read: ten thousand keys with a hundred values each.
MAX_VALUES = 1_000_000

_BLANKS = " \t"
#: What a comment or the end of a line begins with; the library shows the end of the file as NUL.
_NOTHING_MORE = "#\r\n\0"


class TabScanner(Scanner):
    """Reads the words of YAML; a number that Python cannot take is an error of the file."""

    def fetch_more_tokens(self) -> None:
        """Read the next words."""
        try:
            super().fetch_more_tokens()
        except (OverflowError, ValueError):
            raise ScannerError(None, None, "found a number out of range", self.reader.get_mark()) from None

    def scan_to_next_token(self) -> None:
        """Pass by white space, as the library does, and by tabs that indent nothing."""
        self._skip_tabs()
        index = -1
        while index != self.reader.index:
            index = self.reader.index
            super().scan_to_next_token()
            self._skip_tabs()

    def _skip_tabs(self) -> None:
        length = 0
        while (character := self.reader.peek(length)) in _BLANKS:
            length += 1
        # Where a key could begin, what stands before it indents it.
        if not self.allow_simple_key or character in _NOTHING_MORE:
            self.reader.forward(length)

    def scan_plain_spaces(self, indent: object, start_mark: object) -> list[str]:
        """Return the white space within a text; the library knows no tabs there."""
        length = 0
        while self.reader.peek(length) in _BLANKS:
            length += 1
        if "\t" not in (blanks := self.reader.prefix(length)):
            spaces: list[str] = super().scan_plain_spaces(indent, start_mark)
            return spaces
        self.reader.forward(length)
        # At the end of a line white space means nothing, and the library goes on with the next.
        return super().scan_plain_spaces(indent, start_mark) if self.reader.peek() in "\r\n" else [blanks]


class OneFileParser(Parser):
    """Looks its parts up once: the library does so for each word, a tenth of the time that a file takes."""

    @cached_property
    def scanner(self) -> object:
        """What gives the words."""
        return super().scanner

    @cached_property
    def resolver(self) -> object:
        """What knows the tags."""
        return super().resolver


class BoundedComposer(Composer):
    """Builds nodes within `MAX_DEPTH` and `MAX_VALUES`, which hold as if every alias were written out.

    How deep Python itself may go depends on what else it has loaded.
    """

    def __init__(self, loader: YAML | None = None) -> None:
        super().__init__(loader)
        # The library prints both lines of an anchor that stands twice, with whatever secret is on them.
        self.warn_double_anchors = False
        self._depth = 0
        self._values = 0
        #: By id, of what aliases stand for: how many values, and how many levels.
        self._extents: dict[int, tuple[int, int]] = {}

    @cached_property
    def parser(self) -> Parser:
        """What gives the events; looked up once, as in `OneFileParser`."""
        parser: Parser = super().parser
        return parser

    @cached_property
    def resolver(self) -> object:
        """What knows the tags."""
        return super().resolver

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        """Return the next node."""
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent):
            repeated: Node = super().compose_node(parent, index)
            self._add(event.start_mark, *self._extent(repeated, event.start_mark))
            return repeated
        self._add(event.start_mark, 1, 1)
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _add(self, mark: StreamMark, values: int, levels: int) -> None:
        """Count what stands at a mark."""
        self._values += values
        if self._depth + levels > MAX_DEPTH:
            raise ComposerError(None, None, "nested too deeply", mark)
        if self._values > MAX_VALUES:
            problem = f"more than {MAX_VALUES} values, those that aliases repeat included"
            raise ComposerError(None, None, problem, mark)

    def _extent(self, node: Node, mark: StreamMark) -> tuple[int, int]:
        """Return how many values a node has, and how many levels, both with itself."""
        if node.end_mark is None:
            raise ComposerError(None, None, "an alias stands inside what it repeats: write the values out", mark)
        if id(node) not in self._extents:
            parts = [self._extent(child, mark) for child in _children(node)]
            levels = 1 + max((deep for _, deep in parts), default=0)
            self._extents[id(node)] = (1 + sum(many for many, _ in parts), levels)
        return self._extents[id(node)]


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for entry in node.value for part in entry]
    return node.value if isinstance(node, SequenceNode) else []
