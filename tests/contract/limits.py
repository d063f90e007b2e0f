"""The table of limits in `docs/architecture.md`: a name of the code in each row, its value and its reason from there.

`python -m tests.contract.limits` writes the last two columns.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.contract.markdown import DOCS
from tests.contract.rooms import MODULES

DOCUMENT = DOCS / "architecture.md"
_ROW = re.compile(r"^\| `((?:enclave_signer|host_backend)\.[\w.]+)` \| .* \|$", re.MULTILINE)


def names() -> list[str]:
    """Return the names of the table, in order."""
    return _ROW.findall(DOCUMENT.read_text())


def value_of(name: str) -> str:
    """Return the value of a limit, whole numbers without a point."""
    value: object = import_module(_module_of(name))
    for part in _rest_of(name):
        value = getattr(value, part)
    assert isinstance(value, int | float), name
    return str(int(value) if value == int(value) else value)


def reason_of(name: str) -> str:
    """Return the comment `#:` above a limit, or the first line of a property; empty: it has none."""
    path, owner, target = _place_of(name)
    text = path.read_text()
    for node in _body_of(ast.parse(text), owner):
        if isinstance(node, ast.FunctionDef) and node.name == target:
            return (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
        if target in _assigned_by(node):
            return _comment_above(text.splitlines()[: node.lineno - 1])
    return ""


def _module_of(name: str) -> str:
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def _rest_of(name: str) -> list[str]:
    return name.removeprefix(f"{_module_of(name)}.").split(".")


def _place_of(name: str) -> tuple[Path, str, str]:
    """Return file, class (empty: none) and name of what a limit is defined by."""
    module, rest = import_module(_module_of(name)), _rest_of(name)
    owner = module if len(rest) == 1 else type(getattr(module, rest[0]))
    return Path(inspect.getfile(owner)), "" if len(rest) == 1 else owner.__name__, rest[-1]


def _body_of(tree: ast.Module, owner: str) -> list[ast.stmt]:
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return classes[owner].body if owner else tree.body


def _assigned_by(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id


def _comment_above(lines: list[str]) -> str:
    words: list[str] = []
    while lines and lines[-1].strip().startswith("#:"):
        words.insert(0, lines.pop().strip().removeprefix("#:").strip())
    return " ".join(words)


def line_of(name: str) -> str:
    """Return the row of a limit as it must be."""
    return f"| `{name}` | {value_of(name)} | {reason_of(name)} |"


def main() -> None:
    """Write the last two columns."""
    DOCUMENT.write_text(_ROW.sub(lambda row: line_of(row[1]), DOCUMENT.read_text()))


if __name__ == "__main__":
    main()
