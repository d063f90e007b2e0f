"""The documents, as the tests read them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (.*) \|$", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def documents() -> list[Path]:
    """Return every Markdown file of the project."""
    folders = (DOCS, ROOT / "conformance", ROOT / "tests")
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


def blocks(path: Path, language: str) -> list[str]:
    """Return the blocks of one language in a document, in order."""
    return [match[2] for match in _FENCE.finditer(path.read_text()) if match[1] == language]


def prose(path: Path) -> str:
    """Return a document without its blocks."""
    return _FENCE.sub("", path.read_text())


def rows(path: Path) -> list[list[str]]:
    """Return the cells of all tables of a document, row by row."""
    return [[cell.strip() for cell in row.split(" | ")] for row in _ROW.findall(prose(path))]


def anchors(path: Path) -> set[str]:
    """Return what a link may have after its `#`: the headings, as GitHub writes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose(path))}


def named_values(block: str) -> dict[str, str]:
    """Return the lines `name: value` of a block."""
    return dict(line.split(": ") for line in block.splitlines())
