"""`docs/defects-fixed.md` names tests that are there."""

import ast
import re

from tests.contract.markdown import DOCS, ROOT, rows

PAGE = DOCS / "defects-fixed.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_defect_names_a_test() -> None:
    defects = [cells for cells in rows(PAGE) if re.fullmatch(r"E?\d+", cells[0])]
    assert defects
    for cells in defects:
        assert NAMED.search(cells[-1]), cells[0]


def test_the_tests_that_are_named_exist() -> None:
    named = NAMED.findall(PAGE.read_text())
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"
