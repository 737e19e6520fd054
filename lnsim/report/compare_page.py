"""The page of two runs: verdicts, conditions, figures and plots side by side."""

from collections.abc import Iterable
from html import escape

from lnsim.report.compare import Comparison, Difference, notable
from lnsim.report.compare_table import sign, value
from lnsim.report.html import (
    figure_data,
    marks_part,
    metric_name,
    missing_plotly,
    moment,
    page,
    panel_part,
    verdict_words,
)
from lnsim.report.overlay import distributions, marks, over_time
from lnsim.report.panels import Panel
from lnsim.report.result import RunResult


def render(comparison: Comparison) -> str:
    """The whole page, as self-contained as that of one run."""
    one, two = comparison.one, comparison.two
    panels, shapes, happened = over_time(one, two), distributions(one, two), marks(one, two)
    body = [
        _head(comparison),
        _conditions(comparison),
        f"<h2>What matters</h2>{_table(notable(comparison))}",
        missing_plotly(),
        f"<h2>Over time</h2>{marks_part(happened)}{_plots(panels, 0)}" if panels else "",
        f"<h2>How long things took</h2>{_plots(shapes, len(panels))}" if shapes else "",
        f"<h2>All metrics</h2><details><summary>{len(comparison.differences)} figures</summary>{_table(comparison.differences)}</details>",
    ]
    data = figure_data([*panels, *shapes], happened, max(one.duration_s, two.duration_s))
    return page(f"{one.name} and {two.name}", "".join(body), data)


def _head(comparison: Comparison) -> str:
    told = notable(comparison)
    better, worse = (sum(each.judgement == which for each in told) for which in ("better", "worse"))
    title = f"Of the figures that matter, {better} {'is' if better == 1 else 'are'} better and {worse} worse."
    names = dict.fromkeys((comparison.one.name, comparison.two.name))
    return (
        f'<header><div class="eyebrow"><b>{escape(" and ".join(names))}</b> · two runs side by side</div>'
        f"<h1>{title if better or worse else 'Nothing that matters has changed.'}</h1></header>"
        f'<div class="runs">{_run("one", "First", comparison.one)}{_run("two", "Second", comparison.two)}</div>'
    )


def _run(kind: str, which: str, result: RunResult) -> str:
    return (
        f'<section class="{kind}"><div class="eyebrow">{which} · {escape(result.mode)} mode · seed {result.seed} · '
        f"{escape(moment(result.started))}</div><h3>{escape(result.name)}</h3>{verdict_words(result)}"
        f'<pre class="command">{escape(result.command)}</pre></section>'
    )


def _conditions(comparison: Comparison) -> str:
    if not comparison.conditions:
        return '<p class="note">Scenario, seed, versions and machine were the same.</p>'
    rows = "".join(
        f'<tr><td>{escape(each.what)}</td><td class="words">{escape(each.one)}</td><td class="words">{escape(each.two)}</td></tr>'
        for each in comparison.conditions
    )
    return f'<h2>Not the same</h2><div class="wide"><table><tr><th></th><th>first</th><th>second</th></tr>{rows}</table></div>'


def _table(differences: Iterable[Difference]) -> str:
    rows = "".join(map(_difference, differences))
    if not rows:
        return '<p class="note">No figure that is good or bad has changed.</p>'
    return (
        '<div class="wide"><table><tr><th>metric</th><th>first</th><th>second</th><th>change</th></tr>'
        f"{rows}</table></div>"
    )


def _difference(each: Difference) -> str:
    one, two = (escape(value(each.metric, number)) for number in (each.one, each.two))
    return (
        f"<tr><td>{metric_name(each.metric)}</td><td>{one}</td><td>{two}</td>"
        f'<td class="{each.judgement}">{sign(each)}</td></tr>'
    )


def _plots(panels: list[Panel], first: int) -> str:
    plots = "".join(panel_part(panel, number) for number, panel in enumerate(panels, first))
    return f'<div class="columns stacked">{plots}</div>'
