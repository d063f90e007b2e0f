"""The page of metrics as Prometheus' own library writes it."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from host_backend.metrics import Counters, Histograms, Metrics
from host_backend.readings import Reading


class _Collector(Collector):
    def __init__(self, metrics: Metrics, readings: Sequence[Reading]) -> None:
        self._metrics = metrics
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        yield from map(_table, self._metrics.tables())
        yield from map(_reading, self._readings)


def _table(table: Counters | Histograms) -> Metric:
    if isinstance(table, Counters):
        counters = CounterMetricFamily(table.name, table.help, labels=table.labels)
        for labels, count in table.values.items():
            counters.add_metric(labels, count)
        return counters
    histograms = HistogramMetricFamily(table.name, table.help, labels=table.labels)
    for labels, row in table.values.items():
        below = [sum(row[: place + 1]) for place in range(len(row) - 1)]
        edges = [*map(str, table.bounds), "+Inf"]
        histograms.add_metric(labels, list(zip(edges, below, strict=True)), row[-1])
    return histograms


def _reading(reading: Reading) -> Metric:
    kind = CounterMetricFamily if reading.counts else GaugeMetricFamily
    family = kind(reading.name, reading.help, labels=reading.labels)
    for labels, value in filter(None, reading.read()):
        family.add_metric(labels, value)
    return family


def library_page(metrics: Metrics, readings: Sequence[Reading] = ()) -> str:
    """Return the page that the library writes of the same numbers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(metrics, readings))
    return generate_latest(registry).decode()
