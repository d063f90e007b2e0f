"""Functions, classes and files are short; a longer one says why, in a comment or docstring: `Longer than most: …`."""

import ast
from collections.abc import Iterator

import pytest

from tests.contract.rooms import PACKAGES, ROOT

FUNCTION_LINES, CLASS_LINES, CLASS_FIELDS, FILE_LINES = 40, 250, 15, 350
REASON = "Longer than most:"
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if path.name != "_blst.py"]


def fields(class_: ast.ClassDef) -> set[str]:
    """Return what instances of a class hold."""
    declared = {
        node.target.id for node in class_.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assigned = {
        node.attr
        for node in ast.walk(class_)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return declared | assigned


def too_long(tree: ast.Module, lines: list[str]) -> Iterator[str]:
    """Yield everything longer than it may be, and says no reason in its first lines."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert node.end_lineno is not None
        length = node.end_lineno - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            long = length > CLASS_LINES or len(fields(node)) > CLASS_FIELDS
        else:
            long = length > FUNCTION_LINES
        if long and REASON not in "\n".join(lines[node.lineno - 1 : node.lineno + 12]):
            yield f"{node.name}: {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_long_without_a_reason(path) -> None:  # type: ignore[no-untyped-def]
    text = path.read_text()
    lines = text.splitlines()
    found = [*too_long(ast.parse(text), lines)]
    if len(lines) > FILE_LINES and REASON not in "\n".join(lines[:20]):
        found.append(f"{len(lines)} lines")
    assert not found
