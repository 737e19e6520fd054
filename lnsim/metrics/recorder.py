"""Takes down what a run measures, and gives it back as one flat table of metrics, as series and as marks."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from lnsim.metrics.histogram import Histogram

MAX_POINTS = 2_000  # of a series: more than a screen has pixels, half an hour at one a second
MAX_MARKS = 1_000  # more would hide the plot; faults are rarer by far
FRONTEND = re.compile(r"f[1-9]\d*\.(.+)")  # series of one frontend, also told of all together
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

MarkKind = Literal["fault", "info", "good", "bad"]


class Mark(Struct, frozen=True):
    """Something that happened, on the time axis: at once, or until `until_s`."""

    kind: MarkKind
    text: str
    at_s: float
    until_s: float | None = None


class Series(Struct, frozen=True):
    """Of one length; times ascend, in seconds since the run's start."""

    times: list[float]
    values: list[float]


class Measured(Struct, frozen=True):
    """A histogram and the unit of its values, which ends the names of its metrics."""

    unit: str
    histogram: Histogram


class Snapshot(Struct, frozen=True):
    """Counters and histograms of one process so far, to be merged into another's."""

    counters: dict[str, float]
    histograms: dict[str, Measured]

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        return plain

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "Snapshot":
        return msgspec.convert(plain, Snapshot, str_keys=True)


class Recorder:
    """Of one run, or of one process of it. `now` gives seconds since the run's start."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.marks: list[Mark] = []
        self._now = now
        self._counters: dict[str, float] = {}
        self._histograms: dict[str, Measured] = {}
        self._samples: dict[str, _Samples] = {}
        self._put: dict[str, float] = {}

    def count(self, name: str, by: float = 1) -> None:
        self._counters[name] = self._counters.get(name, 0) + by

    def observe(self, name: str, value: float, unit: str = "s") -> None:
        self._measured(name, unit).histogram.observe(value)

    def sample(self, name: str, value: float) -> None:
        self._samples.setdefault(name, _Samples()).add(self._now(), value)

    def put(self, name: str, value: float) -> None:
        """A metric as it is: a ratio or a rate that its caller computed."""
        self._put[name] = value

    def mark(self, kind: MarkKind, text: str, until_s: float | None = None) -> None:
        if len(self.marks) < MAX_MARKS:
            self.marks.append(Mark(kind, text, self._now(), until_s))

    def counter(self, name: str) -> float:
        return self._counters.get(name, 0)

    def snapshot(self) -> Snapshot:
        """A copy: what is recorded afterwards does not change it."""
        return Snapshot(
            dict(self._counters),
            {name: Measured(it.unit, it.histogram.copy()) for name, it in self._histograms.items()},
        )

    def merge(self, snapshot: Snapshot) -> None:
        """Add another process's counts and values; each of them once, hence at its end."""
        for name, value in snapshot.counters.items():
            self.count(name, value)
        for name, other in snapshot.histograms.items():
            self._measured(name, other.unit).histogram.merge(other.histogram)

    def series(self) -> dict[str, Series]:
        return {name: samples.series() for name, samples in sorted(self._samples.items())}

    def metrics(self) -> dict[str, float]:
        """All of it, flat, by name. What was `put` wins."""
        metrics = dict(self._counters)
        for name, measured in self._histograms.items():
            metrics |= _of_histogram(name, measured)
        for name, samples in self._samples.items():
            metrics |= samples.metrics(name)
        for name, parts in self._frontends().items():
            metrics |= _Samples.together(parts).metrics(f"frontend.{name}")
        return dict(sorted((metrics | self._put).items()))

    def _measured(self, name: str, unit: str) -> Measured:
        measured = self._histograms.setdefault(name, Measured(unit, Histogram()))
        assert measured.unit == unit, f"{name} is measured in {measured.unit!r}, not in {unit!r}"
        return measured

    def _frontends(self) -> "dict[str, list[_Samples]]":
        found: dict[str, list[_Samples]] = {}
        for name, samples in self._samples.items():
            if part := FRONTEND.fullmatch(name):
                found.setdefault(part[1], []).append(samples)
        return found


class _Samples:
    """A series in bounded memory: thinned where it grows long, its figures exact all the same."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.minimum = self.maximum = self.last = 0.0
        self._points: list[tuple[float, float]] = []
        self._stride = 1  # so many samples become one point
        self._waiting: list[tuple[float, float]] = []

    def add(self, at_s: float, value: float) -> None:
        self.minimum = min(self.minimum, value) if self.count else value
        self.maximum = max(self.maximum, value) if self.count else value
        self.count += 1
        self.total += value
        self.last = value
        self._waiting.append((at_s, value))
        if len(self._waiting) >= self._stride:
            self._points.append(self._telling(self._waiting))
            self._waiting.clear()
        if len(self._points) >= MAX_POINTS:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [self._telling(pair) for pair in pairs]
            self._stride *= 2

    def _telling(
        self, points: list[tuple[float, float]] | tuple[tuple[float, float], ...]
    ) -> tuple[float, float]:
        """The one that stands out: thinning must hide neither a peak nor a gap."""
        mean = self.total / self.count
        return max(points, key=lambda point: abs(point[1] - mean))

    def series(self) -> Series:
        points = self._points + self._waiting
        return Series([at_s for at_s, _ in points], [value for _, value in points])

    def metrics(self, name: str) -> dict[str, float]:
        return {
            f"{name}.max": self.maximum,
            f"{name}.mean": self.total / self.count,
            f"{name}.min": self.minimum,
            f"{name}.last": self.last,
        }

    @staticmethod
    def together(parts: "list[_Samples]") -> "_Samples":
        """The figures of several series as those of one; its last value is the largest of theirs."""
        result = _Samples()
        result.count = sum(part.count for part in parts)
        result.total = sum(part.total for part in parts)
        result.minimum = min(part.minimum for part in parts)
        result.maximum = max(part.maximum for part in parts)
        result.last = max(part.last for part in parts)
        return result


def _of_histogram(name: str, measured: Measured) -> dict[str, float]:
    histogram, end = measured.histogram, f"_{measured.unit}" if measured.unit else ""
    figures = {key: histogram.percentile(share) for key, share in PERCENTILES.items()}
    figures |= {"max": histogram.maximum, "mean": histogram.mean}
    metrics = {f"{name}.{key}{end}": value for key, value in figures.items()}
    metrics[f"{name}.count"] = histogram.count
    return metrics
