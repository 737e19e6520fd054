"""Which plots a run gives: each a question, the series that answer it, and the figures beside them."""

import math
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from lnsim.metrics.histogram import Histogram
from lnsim.metrics.recorder import Measured, Series
from lnsim.report.quantity import number, seconds, told
from lnsim.report.result import RunResult

MAX_BARS, MIN_BARS = 40, 8  # of a distribution: finer than that is noise, coarser has no shape
FIGURES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Trace(Struct, frozen=True):
    """One line of a plot. `colour` names a role; the page's style gives roles their colours, light and dark."""

    name: str
    colour: str
    x: list[float]
    y: list[float | None]
    fill: bool = False
    dash: bool = False


class Row(Struct, frozen=True):
    """What the table beside a plot says: of one of its lines, or (without colour) of all it shows."""

    name: str
    colour: str
    cells: tuple[str, ...]


class Panel(Struct, frozen=True):
    """One plot. `unit` ends the numbers on its axis; a `log` panel is a distribution and has no time axis."""

    title: str
    unit: str
    traces: list[Trace]
    columns: tuple[str, ...]
    rows: list[Row]
    log: bool = False
    from_zero: bool = True


class Question(Struct, frozen=True):
    """A panel to be: series whose names match, `{part}` naming each line."""

    title: str
    pattern: str
    unit: str = ""
    fill: tuple[str, ...] = ()
    from_zero: bool = True


QUESTIONS = (
    Question("Payments a second", r"payments\.(?P<part>settled|failed)_per_s", "/s", ("settled", "failed")),
    Question("Payment latency, each second", r"payments\.(?P<part>p50|p99)_s", "s"),
    Question("Payments in flight", r"payments\.(?P<part>in_flight)", "", ("in_flight",)),
    Question("Sessions of each frontend", r"(?P<part>f\d+)\.sessions"),
    Question("Light peers connected", r"swarm\.(?P<part>.+)\.connected"),
    Question("Messages in, each frontend", r"(?P<part>f\d+)\.messages_in_per_s", "/s"),
    Question("Messages out, each frontend", r"(?P<part>f\d+)\.messages_out_per_s", "/s"),
    Question("Bytes out, each frontend", r"(?P<part>f\d+)\.bytes_out_per_s", "B/s"),
    Question("Delay on the link to the backend", r"(?P<part>f\d+)\.link_delay_ms", "ms"),
    Question(
        "Gossip, from sent to received", r"gossip\.(?:propagation\.)?(?P<part>propagation|p50|p99)_s", "s"
    ),
    Question("CPU of each process, in cores", r"(?P<part>[^.]+)\.cpu_share", ""),
    Question("Memory of each process", r"(?P<part>[^.]+)\.rss_mb", "MB"),
    Question("Commits of the backend", r"(?P<part>backend)\.commits_per_s", "/s", ("backend",)),
    Question("Height of the chain", r"(?P<part>chain)\.height", from_zero=False),
)
ROLES = {
    "settled": "good",
    "failed": "bad",
    "p50": "blue",
    "p99": "violet",
    "propagation": "blue",
    "in_flight": "blue",
    "backend": "backend",
    "chain": "chain",
    "workers": "workers",
}
FRONTENDS = ("blue", "violet", "teal", "ochre", "rose", "slate")
TITLES = {
    "payments": "Payment, until settled",
    "reconnect": "Connection lost, until back",
    "handshake": "Handshake, until ready",
    "gossip.propagation": "Gossip, from sent to received",
    "sync": "Whole graph, until complete",
    "ping": "Ping, until answered",
}


def over_time(result: RunResult) -> list[Panel]:
    """Panels on one time axis; those without data are left out."""
    panels = [_panel(question, result.series) for question in QUESTIONS]
    return [panel for panel in panels if panel.traces]


def distributions(result: RunResult) -> list[Panel]:
    return [
        _distribution(name, result.histograms[name].unit, result.histograms[name].histogram)
        for name in distributed(result.histograms)
    ]


def distributed(histograms: dict[str, Measured]) -> list[str]:
    """Names of those with something to show, the well known first."""
    shown = [name for name, measured in histograms.items() if measured.histogram.maximum > 0]
    order = list(TITLES)
    return sorted(shown, key=lambda name: (order.index(name) if name in TITLES else len(order), name))


def role(part: str) -> str:
    """The same process has the same colour in every plot."""
    if part in ROLES:
        return ROLES[part]
    digits = re.search(r"\d+$", part)
    number_ = int(digits[0]) - 1 if digits else sum(part.encode())
    return FRONTENDS[number_ % len(FRONTENDS)]


def spelled(part: str) -> str:
    return part.replace("_", " ")


def broken(series: Series) -> list[float | None]:
    """Values with a hole where nothing was measured for long: a line drawn across it would be a lie."""
    steps = sorted(after - before for before, after in zip(series.times, series.times[1:], strict=False))
    usual = steps[len(steps) // 2] if steps else 0.0
    values: list[float | None] = list(series.values)
    for at in range(len(values) - 1, 0, -1):
        if series.times[at] - series.times[at - 1] > max(3 * usual, 2.5):
            values.insert(at, None)
    return values


def line(name: str, colour: str, series: Series, *, fill: bool = False, dash: bool = False) -> Trace:
    values = broken(series)
    times = iter(series.times)
    x: list[float] = []
    for value in values:
        x.append(next(times) if value is not None else x[-1])
    return Trace(name, colour, [round(each, 3) for each in x], values, fill, dash)


def _panel(question: Question, series: dict[str, Series]) -> Panel:
    found = answers(question, (name for name, one in series.items() if one.values))
    traces = [
        line(spelled(part), role(part), series[name], fill=part in question.fill) for part, name in found
    ]
    rows = [Row(spelled(part), role(part), figures(name, series[name].values)) for part, name in found]
    return Panel(
        question.title, question.unit, traces, ("least", "mean", "most"), rows, from_zero=question.from_zero
    )


def answers(question: Question, names: Iterable[str]) -> list[tuple[str, str]]:
    """What each line is called, and its series; as the roles are listed, then by number: f2 before f10."""
    found = [(match["part"], name) for name in names if (match := re.fullmatch(question.pattern, name))]
    order = list(ROLES)

    def key(item: tuple[str, str]) -> tuple[int, int, str]:
        part = item[0]
        return order.index(part) if part in order else -1, len(part), part

    return sorted(found, key=key)


def figures(metric: str, values: Sequence[float]) -> tuple[str, ...]:
    """Least, mean, most. A process may use several cores, so those are told as numbers."""
    known = (min(values), sum(values) / len(values), max(values))
    if metric.endswith("cpu_share"):
        return tuple(f"{figure:.2f}" for figure in known)
    return tuple(told(metric, figure) for figure in known)


def _distribution(name: str, unit: str, histogram: Histogram) -> Panel:
    x, y = bars(histogram)
    tell = seconds if unit == "s" else number
    figures = {key: histogram.percentile(share) for key, share in FIGURES.items()} | {
        "most": histogram.maximum
    }
    rows = [Row(key, "", (tell(value),)) for key, value in figures.items()]
    title = distribution_title(name)
    trace = Trace(title, "blue", x, y, fill=True)
    return Panel(title, unit, [trace], (f"{histogram.count:,} times",), rows, log=True)


def distribution_title(name: str) -> str:
    return TITLES.get(name, name.replace(".", ", ").replace("_", " ").capitalize())


def bars(histogram: Histogram, among: Histogram | None = None) -> tuple[list[float], list[float | None]]:
    """Steps of a distribution: from each x on, so many percent of all. Those `among` others share their steps."""
    whole = among or histogram
    ends = whole.bars()
    first = next(low for low, high, _ in ends if high > 0)
    wanted = min(max(2 * math.isqrt(whole.count), MIN_BARS), MAX_BARS)
    # two buckets of the histogram at least: finer bars would be combs
    width = max((ends[-1][1] / first) ** (1 / wanted), 1.044)
    counts: dict[int, float] = {}
    for low, high, count in histogram.bars():
        for bar, share in _shared(max(low, first) / first, max(high, first) / first, width):
            counts[bar] = counts.get(bar, 0) + count * share
    edges = range(max(counts) + 2)
    x = [float(f"{first * width**bar:.6g}") for bar in edges]
    return x, [round(100 * counts.get(bar, 0) / histogram.count, 4) for bar in edges]


def _shared(low: float, high: float, width: float) -> list[tuple[int, float]]:
    """To which bars a bucket belongs, and how much of it: it is narrower than a bar, so at most two."""
    start, end = math.log(low) / math.log(width), math.log(high) / math.log(width)
    bar = int(start)
    if end <= bar + 1:
        return [(bar, 1.0)]
    share = (bar + 1 - start) / (end - start)
    return [(bar, share), (bar + 1, 1 - share)]
