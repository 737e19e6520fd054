"""The page of a run: one file with everything in it, that asks no network for anything."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from importlib.util import find_spec

import msgspec

from lnsim.metrics.recorder import Mark
from lnsim.report.panels import Panel, Row, distributions, over_time
from lnsim.report.quantity import seconds, told
from lnsim.report.result import Check, RunResult
from lnsim.report.verdict import COMPARED, found

MAX_LANES = 12  # of marks with names; more are told by their bands alone
# The page can't ask for anything, even if a scenario's words got past the escaping.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
HEADLINES = {
    "payments.settled": "payments settled",
    "payments.success_ratio": "of payments succeed",
    "payments.p99_s": "latency, 99th percentile",
    "reconnect.p99_s": "until peers are back, p99",
    "gossip.propagation.p99_s": "gossip propagation, p99",
    "sync.p99_s": "graph sync, p99",
    "handshake.p99_s": "handshake, p99",
    "frontend.rss_mb.max": "largest frontend",
}
MAX_HEADLINES = 5


def render(result: RunResult) -> str:
    """The whole page. Without plotly it has the tables and says what is missing."""
    panels, shapes = over_time(result), distributions(result)
    body = [
        _head(result),
        _checks(result),
        _complaints(result.complaints),
        missing_plotly(),
        _over_time(panels, result.marks),
        _distributions(shapes, len(panels)),
        _all_metrics(result.metrics),
        _origin(result),
    ]
    word = "holds" if result.holds else "falls short"
    data = figure_data([*panels, *shapes], result.marks, result.duration_s)
    return page(f"{result.name} {word}", "".join(body), data)


def page(title: str, body: str, data: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_part("page.css")}</style></head>\n'
        f"<body><main>{body}<footer>Written by lnsim.</footer></main>\n"
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>{_plotly()}</script>\n<script>{_part('page.js')}</script></body></html>\n"
    )


def figure_data(panels: list[Panel], marks: list[Mark], duration_s: float) -> str:
    """What the page's script draws, as JSON that can't end the element it stands in."""
    last_s = max(
        (x for panel in panels if not panel.log for trace in panel.traces for x in trace.x), default=0.0
    )
    data = {
        "panels": panels,
        "marks": marks,
        "duration_s": max(duration_s, last_s),
        "max_lanes": MAX_LANES,
    }
    text = msgspec.json.encode(data).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def panel_part(panel: Panel, number: int) -> str:
    return (
        f'<section class="panel"><h3>{escape(panel.title)}</h3><div class="plot" data-panel="{number}"></div>'
        f"<table><tr><th></th>{_cells(panel.columns, 'th')}</tr>{''.join(map(row_part, panel.rows))}</table></section>"
    )


def marks_part(marks: list[Mark]) -> str:
    if not marks:
        return ""
    faults = sum(mark.kind == "fault" for mark in marks)
    words = f"{faults} {'fault' if faults == 1 else 'faults'}, {len(marks) - faults} other"
    return f'<section class="panel"><h3>What happened</h3><div class="plot lanes"></div><table><tr><th>{words}</th></tr></table></section>'


def metric_name(name: str) -> str:
    """As code that may break at its dots and underscores."""
    broken = re.sub(r"([._])", r"\1<wbr>", escape(name))
    return f"<code>{broken}</code>"


def moment(started: str) -> str:
    """ISO 8601 as people write it, without seconds."""
    return f"{started[:10]} {started[11:16]}{' UTC' if started.endswith(('+00:00', 'Z')) else started[19:]}"


def missing_plotly() -> str:
    if _plotly():
        return ""
    return '<p class="note">Without plots: plotly is missing here. <code>pip install "lnsim[sim]"</code> brings it.</p>'


@cache
def _part(name: str) -> str:
    return (files("lnsim.report") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    if find_spec("plotly") is None:
        return ""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - only a page needs it, and may do without

    return str(get_plotlyjs())


def verdict_words(result: RunResult) -> str:
    checks = (*result.expectations, *result.invariants)
    held = sum(check.holds for check in checks)
    word, kind = ("It holds", "good") if result.holds else ("It falls short", "bad")
    return f'<div class="verdict {kind}"><strong>{word}.</strong><span>{held} of {len(checks)} checks hold</span></div>'


def _head(result: RunResult) -> str:
    when = f"{escape(moment(result.started))} · {seconds(result.duration_s)}"
    return (
        f'<header><div class="eyebrow"><b>{escape(result.name)}</b> · {escape(result.mode)} mode · seed {result.seed} · {when}</div>'
        f"<h1>{escape(result.claim or result.name)}</h1>"
        f"{verdict_words(result)}</header>{_headlines(result.metrics)}"
    )


def _headlines(metrics: Mapping[str, float]) -> str:
    known = [name for name in HEADLINES if name in metrics][:MAX_HEADLINES]
    if not known:
        return ""
    figures = (
        f"<div><dt>{HEADLINES[name]}</dt><dd>{escape(told(name, metrics[name]))}</dd></div>" for name in known
    )
    return f'<dl class="figures">{"".join(figures)}</dl>'


def _checks(result: RunResult) -> str:
    parts = [
        f'<section><h3>{title}</h3><ul class="plain">{"".join(map(_check, checks))}</ul></section>'
        for title, checks in (("Expected", result.expectations), ("Always true", result.invariants))
        if checks
    ]
    return f'<div class="checks">{"".join(parts)}</div>' if parts else ""


def _check(check: Check) -> str:
    kind, sign = ("good", "✓") if check.holds else ("bad", "✗")
    text = escape(check.text)
    if COMPARED.search(check.text):
        text = f"<code>{text}</code>"
    return f'<li class="{kind}"><span class="sign">{sign}</span><span>{text}</span><span class="value">{escape(found(check))}</span></li>'


def _complaints(complaints: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(complaint)}</li>" for complaint in complaints)
    return (
        f'<div class="complaints"><h3>What went wrong</h3><ul class="plain">{items}</ul></div>'
        if items
        else ""
    )


def _over_time(panels: list[Panel], marks: list[Mark]) -> str:
    if not panels:
        return ""
    plots = "".join(panel_part(panel, number) for number, panel in enumerate(panels))
    return f"<h2>Over time</h2>{marks_part(marks)}{plots}"


def _distributions(panels: list[Panel], first: int) -> str:
    if not panels:
        return ""
    plots = "".join(panel_part(panel, number) for number, panel in enumerate(panels, first))
    return f'<h2>How long things took</h2><div class="columns">{plots}</div>'


def _all_metrics(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return ""
    lines = (
        f"<div>{metric_name(name)}<span>{escape(told(name, value))}</span></div>"
        for name, value in sorted(metrics.items())
    )
    return f'<h2>All metrics</h2><details><summary>{len(metrics)} figures that an expectation may name</summary><div class="metrics">{"".join(lines)}</div></details>'


def _origin(result: RunResult) -> str:
    run = {
        "seed": str(result.seed),
        "mode": result.mode,
        "started": moment(result.started),
        "ran for": seconds(result.duration_s),
        "took": seconds(result.wall_s),
    }
    facts = "".join(map(_facts, (run, result.versions, result.machine)))
    return (
        f'<h2>The same again</h2><pre class="command">{escape(result.command)}</pre>'
        f'<div class="facts">{facts}</div>'
    )


def _facts(facts: Mapping[str, str]) -> str:
    lines = (f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts.items())
    return f"<dl>{''.join(lines)}</dl>" if facts else ""


def row_part(row: Row) -> str:
    colour = escape(row.colour)
    swatch = f'<span class="swatch" style="background-color:var(--{colour})"></span>' if colour else ""
    return f"<tr><td>{swatch}{escape(row.name)}</td>{_cells(row.cells, 'td')}</tr>"


def _cells(cells: Iterable[str], tag: str) -> str:
    return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
