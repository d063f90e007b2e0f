"""The page of `/metrics`: counters and present readings, in steps."""

from collections.abc import Iterator, Sequence

from host_backend.exposition import HistogramSeries, Series, head, page
from host_backend.metrics import Counters, Histograms, Metrics
from host_backend.readings import Reading
from host_backend.steps import Work


def metrics_page(metrics: Metrics, readings: Sequence[Reading]) -> Work[tuple[bytes, ...]]:
    """Return the page in parts, in Prometheus' text format.

    Args:
        metrics: What was counted.
        readings: Present values; they come last.
    """
    return page(_lines(metrics, readings))


def _lines(metrics: Metrics, readings: Sequence[Reading]) -> Iterator[str | None]:
    for table in metrics.tables():
        yield from _counter_lines(table) if isinstance(table, Counters) else _histogram_lines(table)
    for reading in readings:
        yield from _reading_lines(reading)


def _counter_lines(table: Counters) -> Iterator[str]:
    name = f"{table.name}_total"
    series = Series(name, table.labels)
    yield head(name, table.help, "counter")
    # A copy: requests go on between two lines, and the store's thread counts, too. Series are added, never removed.
    for labels in list(table.values):
        yield series.line(labels, table.values[labels])


def _histogram_lines(table: Histograms) -> Iterator[str]:
    series = HistogramSeries(table.name, table.labels, table.bounds)
    yield head(table.name, table.help, "histogram")
    for labels in list(table.values):
        yield series.lines(labels, table.values[labels])


def _reading_lines(reading: Reading) -> Iterator[str | None]:
    name = f"{reading.name}_total" if reading.counts else reading.name
    series = Series(name, reading.labels)
    yield head(name, reading.help, "counter" if reading.counts else "gauge")
    for value in reading.read():
        yield None if value is None else series.line(*value)
