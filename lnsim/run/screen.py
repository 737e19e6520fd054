"""The live view of a run: a pure function from what is recorded so far to the lines of a screen."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.text import Text

from lnsim import view_panels as panels
from lnsim import view_style as style
from lnsim.metrics.recorder import Mark, Recorder, Series
from lnsim.scenario import expectation
from lnsim.stage import Stage

MIN_WIDTH = 70
MIN_HEIGHT = 20
SPINNER = "◐◓◑◒"
SPARK_ROWS = 3
COLUMNS = (
    ("cpu_share", "CPU", "{:.0%}"),
    ("rss_mb", "MB", "{:.0f}"),
    ("sessions", "peers", "{:.0f}"),
    ("messages_in_per_s", "in/s", "{:.0f}"),
    ("messages_out_per_s", "out/s", "{:.0f}"),
)
NO_SERIES = Series([], [])
PHASES = {
    "starting": "starting processes",
    "building": "connecting peers, opening channels",
    "running": "running",
    "settling": "waiting for what is in flight",
    "checking": "checking the books",
    "stopping": "stopping",
    "done": "done",
}

Words = Sequence[tuple[str, str]]


class Shown(Protocol):
    """A run, as far as it is shown."""

    stage: Stage
    phase: str

    @property
    def now_s(self) -> float: ...


def render(run: Shown, words: Words, width: int, height: int) -> Text:
    """A whole screen. On a terminal that is too small it says so instead."""
    if width < MIN_WIDTH or height < MIN_HEIGHT:
        return Text(f"the view needs {MIN_WIDTH}x{MIN_HEIGHT}, this terminal has {width}x{height}")
    recorder = run.stage.recorder
    head = [_header(run, width), *_claim(run, width), Text(), *_timeline(run, recorder.marks, width), Text()]
    series = recorder.series()
    free = height - len(head)
    upper = max(8, free // 2)
    left = width // 2
    right = width - left
    top = panels.beside(
        panels.panel("payments", _payments(recorder, series, left - 4), left, upper),
        panels.panel("processes", _processes(run.stage, series, right - 4), right, upper),
    )
    bottom = panels.beside(
        panels.panel("expected", _expected(run.stage, left - 4), left, free - upper),
        panels.panel("events", _events(recorder.marks, words, free - upper - 2), right, free - upper),
    )
    return Text("\n").join([*head, *top, *bottom])


def _header(run: Shown, width: int) -> Text:
    scenario = run.stage.scenario
    spin = SPINNER[int(run.now_s * 4) % len(SPINNER)]
    line = Text.assemble(
        (" ↯ lnsim run ", style.HUB_STRONG),
        (f" {scenario.name} ", style.STRONG),
        (f" {min(run.now_s, scenario.duration_s):.0f} of {scenario.duration_s:g} s ", style.TEXT),
        (f" seed {run.stage.seed} ", style.DIM),
        (f" {spin} {PHASES.get(run.phase, run.phase)}", style.GOOD),
    )
    return panels.fit(line, width)


def _claim(run: Shown, width: int) -> list[Text]:
    return [
        panels.fit(Text(f" {line}", style.DIM), width) for line in run.stage.scenario.claim.splitlines()[:3]
    ]


def _timeline(run: Shown, marks: Sequence[Mark], width: int) -> list[Text]:
    """How far the run is, and above it where what happened."""
    duration_s, room = run.stage.scenario.duration_s, width - 2
    above = [" "] * room
    for mark in marks:
        place = min(room - 1, int(mark.at_s / duration_s * room))
        above[place] = "▼" if mark.kind == "fault" or above[place] == "▼" else "▿"
    share = min(1.0, run.now_s / duration_s)
    return [
        Text.assemble(" ", ("".join(above), style.BAD)),
        Text.assemble(" ", panels.bar(share, room, style.HUB, style.FRAME)),
    ]


def _payments(recorder: Recorder, series: Mapping[str, Series], width: int) -> list[Text]:
    value, per_s = recorder.counter, series.get("payments.settled_per_s", NO_SERIES)
    if not value("payments.attempted"):
        return [Text("none so far", style.DIM)]
    rows = panels.sparkline(per_s.values, width, SPARK_ROWS)
    latest = per_s.values[-1] if per_s.values else 0.0
    settled, failed = value("payments.settled"), value("payments.failed") + value("payments.unknown")
    counts = Text.assemble(
        (f"{settled:.0f}", style.STRONG),
        (" settled  ", style.DIM),
        (f"{failed:.0f}", style.BAD if failed else style.TEXT),
        (" failed  ", style.DIM),
        (f"{_last(series, 'payments.in_flight'):.0f}", style.TEXT),
        (" in flight", style.DIM),
    )
    speed = Text.assemble(
        (f"{latest:.0f}", style.STRONG),
        ("/s   p50 ", style.DIM),
        (f"{_last(series, 'payments.p50_s') * 1_000:.0f}", style.TEXT),
        (" ms  p99 ", style.DIM),
        (f"{_last(series, 'payments.p99_s') * 1_000:.0f}", style.TEXT),
        (" ms", style.DIM),
    )
    return [*rows, counts, speed]


def _processes(stage: Stage, series: Mapping[str, Series], width: int) -> list[Text]:
    lines = [Text(f"{'':<9}" + "".join(f"{column:>8}" for _, column, _ in COLUMNS), style.DIM)]
    for name in ("backend", *stage.frontends, "chain", "workers", "tor", "lntor"):
        cells = [(f"{name}.{gauge}", pattern) for gauge, _, pattern in COLUMNS]
        if not any(key in series for key, _ in cells):
            continue
        shown = "".join(
            f"{pattern.format(_last(series, key)) if key in series else '':>8}" for key, pattern in cells
        )
        up = name not in ("backend", *stage.frontends) or stage.is_up(name)
        lines.append(Text.assemble((f"{name:<9}", style.TEXT if up else style.BAD), (shown, style.TEXT)))
    crowds = sorted(key for key in series if key.startswith("swarm.") and key.endswith(".connected"))
    lines += [Text(f"{key.split('.')[1]}: {_last(series, key):.0f} connected", style.DIM) for key in crowds]
    return lines


def _expected(stage: Stage, width: int) -> list[Text]:
    """Each expectation with where it stands now; most can only be told at the end."""
    if not stage.scenario.expect:
        return [Text("the invariants, nothing else", style.DIM)]
    metrics = stage.recorder.metrics()
    lines = []
    for line in stage.scenario.expect:
        wanted = expectation.parse(line)
        value = metrics.get(wanted.metric)
        now = "" if value is None else f"{value:.4g}"
        holds = wanted.holds(metrics)
        lines.append(
            Text.assemble(
                ("✓ " if holds else "· ", style.GOOD if holds else style.DIM),
                (f"{line:<{width - 12}}", style.TEXT),
                (f"{now:>10}", style.STRONG),
            )
        )
    return lines


def _events(marks: Sequence[Mark], words: Words, rows: int) -> list[Text]:
    lines = [Text(text, style.NOTES.get(kind, style.TEXT)) for kind, text in words]
    for mark in marks:
        kind = style.BAD if mark.kind == "fault" else style.NOTES.get(mark.kind, style.TEXT)
        lines.append(Text.assemble((f"{mark.at_s:6.1f} s  ", style.DIM), (mark.text, kind)))
    return lines[-rows:]


def _last(series: Mapping[str, Series], name: str) -> float:
    values = series.get(name, NO_SERIES).values
    return values[-1] if values else 0.0
