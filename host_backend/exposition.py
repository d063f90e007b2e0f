"""Prometheus' text format 0.0.4, a series at a time, so that a page of a hundred thousand lines is made in steps.

Labels stand in the order of their names, families and their series in the order in which they are given.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, and the text that Prometheus' own library for
Python writes of the same values.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal

from host_backend.steps import Work

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Bytes of a part of the page: some 500 lines, sent at once.
PART_BYTES = 65536

Kind = Literal["counter", "gauge", "histogram"]


def head(name: str, help_: str, kind: Kind) -> str:
    """Return the two lines before the series of a family."""
    text = help_.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


class Series:
    """Writes the lines of all series with one name.

    Args:
        name: As it stands in the line, with the ending that its kind has.
        labels: Their names.
    """

    __slots__ = ("_form", "_order")

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self._order = sorted(range(len(labels)), key=labels.__getitem__)
        names = ",".join(f'{labels[place]}="%s"' for place in self._order)
        self._form = f"{name}{{{names}}} %s\n" if labels else f"{name} %s\n"

    def line(self, values: Sequence[str], number: float) -> str:
        """Return the line of one series.

        Args:
            values: Of the labels, in the order in which their names were given.
            number: The sample.
        """
        return self._form % (*[escaped(values[place]) for place in self._order], sample(number))


def escaped(value: str) -> str:
    """Return the value of a label as it stands between quotation marks."""
    # Most are hashes of keys and names of chains.
    return value if value.isalnum() else value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def sample(number: float) -> str:
    """Return a number as Go writes it, which has exponents from a million on."""
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "+Inf" if number > 0 else "-Inf"
    text = repr(float(number))
    point = text.find(".")
    if number > 0 and point > 6:
        digits = f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.")
        return f"{digits}e+{point - 1:02d}"
    return text


class HistogramSeries:
    """Writes the lines of all histograms with one name.

    Args:
        name: Of the family.
        labels: Their names.
        bounds: Upper ones, rising.
    """

    __slots__ = ("_buckets", "_count", "_edges", "_sum")

    def __init__(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._buckets = Series(f"{name}_bucket", (*labels, "le"))
        self._count, self._sum = Series(f"{name}_count", labels), Series(f"{name}_sum", labels)
        self._edges = [*map(sample, bounds), "+Inf"]

    def lines(self, values: Sequence[str], row: Sequence[float]) -> str:
        """Return the lines of one histogram.

        Args:
            values: Of the labels, in the order in which their names were given.
            row: How many fell below each bound and above the one before, how many above all, and their sum.
        """
        *counts, total = row
        below = list(accumulate(counts))
        lines = [self._buckets.line((*values, edge), count) for edge, count in zip(self._edges, below, strict=True)]
        return "".join((*lines, self._count.line(values, below[-1]), self._sum.line(values, total)))


def page(lines: Iterable[str | None]) -> Work[tuple[bytes, ...]]:
    """Return a page in parts.

    Args:
        lines: One or more in each text; None where there is none yet.
    """
    parts: list[bytes] = []
    part: list[str] = []
    size = 0
    for line in lines:
        if line is not None:
            part.append(line)
            size += len(line)
        if size >= PART_BYTES:
            parts.append("".join(part).encode())
            part, size = [], 0
        yield None
    return (*parts, "".join(part).encode())
