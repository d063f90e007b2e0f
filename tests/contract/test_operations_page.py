"""The page about operations quotes what the programs say."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.contract.markdown import DOCS, ROOT, rows

PAGE = DOCS / "operations.md"
#: How the first column of a table is headed that has texts of the programs.
HEADINGS = {"text contains", "reason contains"}


def quoted() -> Iterator[str]:
    quotes = False
    for cells in rows(PAGE):
        if cells[0] in HEADINGS:
            quotes = True
        elif len(cells) != 2 or not cells[0].startswith("`"):
            quotes = False
        elif quotes:
            yield from re.findall("`([^`]+)`", cells[0])


@cache
def texts() -> str:
    """Return all texts in the code of both programs, a line each, with `…` for the values put into them."""
    lines = []
    for package in ("enclave_signer", "host_backend"):
        for path in (ROOT / package).rglob("*.py"):
            nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.expr)]
            lines += [text_of(node) for node in nodes]
    return "\n".join(lines)


def text_of(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text.replace("\n", " ")
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in parts)
        case _:
            return ""


@pytest.mark.parametrize("quote", list(quoted()))
def test_a_quoted_text_is_one_of_the_programs(quote: str) -> None:
    # Numbers and names are put in when a text is made.
    pattern = ".*".join(re.escape(part) for part in re.split(r"…|\d+|Firestore", quote))
    assert re.search(pattern, texts()), quote
