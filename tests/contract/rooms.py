"""The table of rooms in `docs/architecture.md`, and what the code's modules import.

`python -m tests.contract.rooms` writes its last two columns: the first lines of the modules, and their imports.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
PACKAGES = ("enclave_signer", "host_backend")
#: The doors by which the host enters the enclave's package.
DOORS = ("enclave_signer.protocol", "enclave_signer.tezos", "enclave_signer.curves")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of ours, by its dotted name."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield what a module imports, names of packages' attributes included: `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = dict(modules())
IMPORTS = {name: set(imports(tree)) for name, tree in MODULES.items()}


def within(module: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module, or what it is named by, lies in one of these rooms."""
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@dataclass(frozen=True, slots=True)
class Row:
    """Some rooms that share a line of the table; `does` and `imports` are its last columns."""

    line: str
    rooms: tuple[str, ...]
    ring: str
    does: str
    imports: str


def table() -> list[Row]:
    """Return the rows of the table, in order."""
    document = DOCUMENT.read_text()
    rows, package = [], ""
    for line in document[document.index("## Rooms") :].splitlines():
        if title := re.match(r"\| \*\*(\w+)\*\*", line):
            package = title[1]
        elif line.startswith("## ") and line != "## Rooms":
            break
        elif (cells := re.match(r"\| (`.*?`) \| (\w+) \| (.*?) \| ([^|]*?) \|$", line)) and package:
            rooms = tuple(f"{package}.{room}" for room in re.findall(r"`([\w.]+)`", cells[1]))
            rows.append(Row(line, rooms, cells[2], cells[3], cells[4]))
    return rows


TABLE = table()
ROOMS = [room for row in TABLE for room in row.rooms]


def room_of(module: str) -> str | None:
    """Return the innermost room of the table that a module lies in."""
    return max((room for room in ROOMS if within(module, (room,))), key=len, default=None)


def module_of(imported: str) -> str | None:
    """Return the module of ours that an import names, or whose attribute it names; None for others."""
    while imported and imported not in IMPORTS:
        imported = imported.rpartition(".")[0]
    return imported if imported and imported not in PACKAGES else None


def does_of(row: Row) -> str:
    """Return what the third column of a row must be: the first lines of its modules."""
    texts = (ast.get_docstring(MODULES[room]) or "" for room in row.rooms)
    return " ".join(text.partition("\n\n")[0].replace("\n", " ") for text in texts)


def imports_of(row: Row) -> str:
    """Return what the last column of a row must be."""
    if row.ring == "root":
        return "all of these"
    package = row.rooms[0].partition(".")[0]
    used: set[str] = set()
    for name, imported in IMPORTS.items():
        if room_of(name) in row.rooms:
            used |= {module for other in imported if (module := module_of(other)) is not None}
    doors = {module for module in used if package == "host_backend" and within(module, DOORS)}
    rooms = {room_of(module) or module for module in used - doors} - {*row.rooms}
    names = [*sorted(room.removeprefix(f"{package}.") for room in rooms), *(["doors"] if doors else [])]
    return ", ".join(names) or "nothing"


def main() -> None:
    """Write the last two columns."""
    text = DOCUMENT.read_text()
    for row in TABLE:
        kept = row.line.split(" | ")[:2]
        text = text.replace(row.line, " | ".join([*kept, does_of(row), f"{imports_of(row)} |"]))
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
