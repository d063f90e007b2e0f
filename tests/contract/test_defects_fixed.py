"""Every defect in the list names tests that hold it, and every test that a document names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.contract.markdown import DOCS, ROOT, rows

DOCUMENT = DOCS / "defects-fixed.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the tests of a module, those of classes as `Class::test`."""
    if not path.exists():
        return frozenset()
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        else:
            # Some stand below an `if`: where the machine can run them.
            names |= {inner.name for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)}
    return frozenset(names)


def defects() -> list[list[str]]:
    heads = ("#", "---")
    return [row for row in rows(DOCUMENT) if not row[0].startswith(heads)]


def test_no_number_is_missing() -> None:
    numbers = {int(defect[0]) for defect in defects() if defect[0].isdecimal()}
    assert numbers == set(range(1, 45))


def test_every_defect_names_a_test() -> None:
    for defect in defects():
        assert len(defect) == 3, defect
        cell = defect[-1]
        assert _NAMED.search(cell), f"no test: {defect[1]}"
        # Nothing in the cell but tests.
        assert not _NAMED.sub("", cell).replace(",", "").strip(), cell


@pytest.mark.parametrize("document", [DOCUMENT, DOCS / "fault-model.md"], ids=lambda path: path.name)
def test_every_named_test_exists(document: Path) -> None:
    named = _NAMED.findall(document.read_text())
    assert len(named) > 40
    for path, name in named:
        assert name in names_in(ROOT / path), f"{path}::{name}"
