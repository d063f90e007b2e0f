"""Pictures of the table of bars: `python -m benchmarks.pictures` draws them from the figures that stand in the document.

A bar is how many times as fast as the peer's figure ours is, on a scale that doubles; the peer's is at 1, and a mark stands
where the bar of the table is. The picture takes the colours of the reader's page, light or dark.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log2
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
FOLDER = ROOT / "docs" / "pictures"
#: Files, and how the rows begin that are in each; a row is in the first one that it fits.
PICTURES = {"performance-wire.svg": "wire ", "performance.svg": ""}

#: A row that counts, and names a peer.
_ROW = re.compile(
    r"^\| (?P<what>.+?) \| .+? \| `(?P<peer>.+?)` .+? \| .+? \| (?P<ratio>\S+) \| (?P<sign>[≤≥]) (?P<bar>\S+) "
    r"\| (?P<held>yes|no) \|$",
    re.MULTILINE,
)
#: Smallest and largest of the scale; a longer bar ends at the edge.
_LEAST, _MOST = 0.125, 64.0
_LEFT, _DOUBLING, _LINE, _TOP = 260, 40, 20, 30
_STYLE = (
    "text{font:12px sans-serif;fill:#24292f}.held{fill:#2da44e}.behind{fill:#bf8700}.scale{stroke:#8c959f;stroke-width:.5}"
    ".theirs{stroke:#24292f}.bar{stroke:#cf222e;stroke-width:3}.end{text-anchor:end}.middle{text-anchor:middle}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.theirs{stroke:#e6edf3}.bar{stroke:#ff7b72}}"
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A row: how many times as fast as the peer ours is, how many it should be, and whether the table says that it is."""

    name: str
    ours: float
    wanted: float
    held: bool


def bars(table: str) -> list[Bar]:
    """Return what the rows of a table say that count, and name a peer."""
    found = []
    for row in _ROW.finditer(table):
        ours, wanted = float(row["ratio"]), float(row["bar"])
        if row["sign"] == "≤":
            ours, wanted = 1 / ours, 1 / wanted
        found.append(Bar(f"{row['what']} / {row['peer']}", ours, wanted, row["held"] == "yes"))
    return found


def _place(value: float) -> float:
    """Return where a value of the scale is, in pixels from the left."""
    return round(_LEFT + _DOUBLING * log2(min(max(value, _LEAST), _MOST) / _LEAST), 1)


def _lines(shown: Sequence[Bar]) -> Iterator[str]:
    height = _TOP + _LINE * len(shown)
    value = _LEAST
    while value <= _MOST:
        kind, place = "theirs" if value == 1 else "scale", _place(value)
        yield f'<path class="{kind}" d="M{place} {_TOP - 6}V{height}"/>'
        yield f'<text class="middle" x="{place}" y="{_TOP - 12}">{value:g}</text>'
        value *= 2
    for number, bar in enumerate(shown):
        top = _TOP + _LINE * number
        kind = "held" if bar.held else "behind"
        end, wanted = _place(bar.ours), _place(bar.wanted)
        yield f'<text class="end" x="{_LEFT - 8}" y="{top + 14}">{escape(bar.name)}</text>'
        yield f'<path class="{kind}" d="M{_LEFT} {top + 4}H{end}V{top + 16}H{_LEFT}z"/>'
        yield f'<path class="bar" d="M{wanted} {top + 2}V{top + 18}"/>'
        yield f'<text x="{max(end, wanted) + 6}" y="{top + 14}">{bar.ours:.2f}</text>'


def picture(shown: Sequence[Bar]) -> str:
    """Return a picture of rows, as SVG."""
    width, height = _LEFT + _DOUBLING * log2(_MOST / _LEAST) + 50, _TOP + _LINE * len(shown) + 6
    title = "How many times as fast as the peer; the peer is at 1, and a red mark is the bar"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" role="img">'
    return "\n".join([head, f"<title>{title}</title>", f"<style>{_STYLE}</style>", *_lines(shown), "</svg>", ""])


def drawn(table: str) -> dict[str, str]:
    """Return each picture of a table, by the name of its file."""
    left, pictures = bars(table), {}
    for name, beginning in PICTURES.items():
        shown = [bar for bar in left if bar.name.startswith(beginning)]
        left = [bar for bar in left if bar not in shown]
        pictures[name] = picture(shown)
    return pictures


def write() -> None:
    """Draw the pictures of the document's table."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in drawn(DOCUMENT.read_text()).items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    write()
