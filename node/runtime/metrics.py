"""Prometheus metrics: a registry for each process, filled when it is scraped from figures that are there anyway.

Nothing is global and nothing is counted twice: a process hands in functions that read its parts, and a hot path
has an integer to raise at most. Names are `lnnode_...`, units last.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from node.runtime.histogram import Histogram

Gather = Callable[[], Iterator[Metric]]
Rows = Iterable[tuple[tuple[str, ...], float]]


class _Figures(Collector):
    def __init__(self, gather: Gather) -> None:
        self._gather = gather

    def collect(self) -> Iterator[Metric]:
        return self._gather()


def registry(*gatherers: Gather) -> CollectorRegistry:
    """What one process shows, its own memory, CPU and open files included."""
    made = CollectorRegistry()
    for gather in gatherers:
        made.register(_Figures(gather))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    return made


def gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, float(value))


def counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, float(value))


def gauges(name: str, about: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    """One gauge for each combination of labels."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for values, value in rows:
        family.add_metric(values, float(value))
    return family


def counters(name: str, about: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    """One counter for each combination of labels."""
    family = CounterMetricFamily(name, about, labels=labels)
    for values, value in rows:
        family.add_metric(values, float(value))
    return family


def histogram(name: str, about: str, value: Histogram) -> Metric:
    return HistogramMetricFamily(name, about, buckets=value.cumulative(), sum_value=value.total)
