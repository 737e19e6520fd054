"""The plots of two runs, one over the other: a plot for each series, a line for each run."""

from collections.abc import Iterator

from msgspec.structs import replace

from lnsim.metrics.histogram import Histogram
from lnsim.metrics.recorder import Mark
from lnsim.report.panels import (
    FIGURES,
    QUESTIONS,
    Panel,
    Row,
    Trace,
    answers,
    bars,
    distributed,
    distribution_title,
    figures,
    line,
    spelled,
)
from lnsim.report.quantity import number, seconds
from lnsim.report.result import RunResult

COLOURS = {"first": "blue", "second": "rose"}


def over_time(one: RunResult, two: RunResult) -> list[Panel]:
    """Of every series that either run has."""
    runs = {"first": one, "second": two}
    panels = []
    for question in QUESTIONS:
        names = {name for run in runs.values() for name, series in run.series.items() if series.values}
        parts = answers(question, names)
        for part, name in parts:
            title = f"{question.title}: {spelled(part)}" if len(parts) > 1 else question.title
            having = {which: run.series[name] for which, run in runs.items() if name in run.series}
            having = {which: series for which, series in having.items() if series.values}
            traces = [line(which, COLOURS[which], series) for which, series in having.items()]
            rows = [Row(which, COLOURS[which], figures(name, it.values)) for which, it in having.items()]
            columns = ("least", "mean", "most")
            panels.append(Panel(title, question.unit, traces, columns, rows, from_zero=question.from_zero))
    return panels


def distributions(one: RunResult, two: RunResult) -> list[Panel]:
    panels = []
    for name in distributed(one.histograms | two.histograms):
        found = {"first": one.histograms.get(name), "second": two.histograms.get(name)}
        having = {
            which: measured for which, measured in found.items() if measured and measured.histogram.count
        }
        whole = Histogram()
        for measured in having.values():
            whole.merge(measured.histogram)
        unit = next(measured.unit for measured in having.values())
        traces, rows = [], []
        for which, measured in having.items():
            traces.append(Trace(which, COLOURS[which], *bars(measured.histogram, whole), fill=True))
            rows.append(Row(which, COLOURS[which], _figures(measured.histogram, unit)))
        columns = ("times", *FIGURES, "most")
        panels.append(Panel(distribution_title(name), unit, traces, columns, rows, log=True))
    return panels


def marks(one: RunResult, two: RunResult) -> list[Mark]:
    """What both had at the same moments once; the rest with the run's name."""
    return [
        *(mark for mark in one.marks if mark in two.marks),
        *_own("first", one, two),
        *_own("second", two, one),
    ]


def _own(which: str, run: RunResult, other: RunResult) -> Iterator[Mark]:
    for mark in run.marks:
        if mark not in other.marks:
            yield replace(mark, text=f"{which}: {mark.text}")


def _figures(histogram: Histogram, unit: str) -> tuple[str, ...]:
    tell = seconds if unit == "s" else number
    known = [tell(histogram.percentile(share)) for share in FIGURES.values()]
    return (number(histogram.count), *known, tell(histogram.maximum))
