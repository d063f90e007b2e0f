"""Measure of plain English: how often translated-sounding words stand in what the programs say of themselves."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

#: Words that native writers of code hardly use.
WORDS = ("whoever", "shall", "what is", "told", "anew", "nobody")
#: Occurrences of each in so many words.
PER_WORDS = 10_000


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield docstrings, comments and texts of a module, each with its line."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def found(text: str) -> Iterator[str]:
    """Yield each of the words as often as a text has it."""
    flat = " ".join(text.lower().split())
    for word in WORDS:
        yield from re.findall(rf"\b{word}\b", flat)
