"""Two runs in the terminal: what was different about them, and what became of it."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lnsim.report.compare import Comparison, Difference, notable
from lnsim.report.quantity import told
from lnsim.report.result import RunResult

STYLES = {"better": "green", "worse": "bold red", "same": "bright_black", "other": ""}
DIM = "bright_black"


def render(comparison: Comparison) -> RenderableType:
    parts = [Text(), _title("first ", comparison.one), _title("second", comparison.two), Text()]
    rows: list[RenderableType] = [*parts]
    if comparison.conditions:
        rows += [_conditions(comparison), Text()]
    told_first = notable(comparison)
    rows += [
        _figures(told_first) if told_first else Text("No figure that is good or bad has changed."),
        Text(),
    ]
    more = len(comparison.differences) - len(told_first)
    rows.append(Text(f"{more} more figures are on the page: --report DIR", DIM) if more else Text())
    return Padding(Group(*rows), (0, 2))


def sign(difference: Difference) -> str:
    """The change in words: +12 %, 3.4 times, new, gone."""
    if difference.one is None:
        return "new"
    if difference.two is None:
        return "gone"
    if difference.change is None:
        return "=" if difference.one == difference.two else "from 0"
    if difference.change >= 2:
        return f"{difference.change + 1:.3g} times"
    return f"{100 * difference.change:+.1f} %"


def value(metric: str, number: float | None) -> str:
    return "-" if number is None else told(metric, number)


def _title(which: str, result: RunResult) -> Text:
    word, style = ("holds", "green") if result.holds else ("falls short", "red")
    return Text.assemble(
        (f"{which}  ", DIM),
        (result.name, "bold"),
        " ",
        (word, style),
        (f"   {result.mode}, seed {result.seed}", DIM),
    )


def _conditions(comparison: Comparison) -> Table:
    table = Table("not the same", "first", "second", box=None, pad_edge=False, header_style=DIM)
    for condition in comparison.conditions:
        table.add_row(Text(condition.what), Text(condition.one), Text(condition.two))
    return table


def _figures(differences: list[Difference]) -> Table:
    table = Table(box=None, pad_edge=False, header_style=DIM)
    table.add_column("metric", overflow="fold")
    for name in ("first", "second", "change"):
        table.add_column(name, justify="right")
    for each in differences:
        style = STYLES[each.judgement]
        table.add_row(
            Text(each.metric),
            value(each.metric, each.one),
            value(each.metric, each.two),
            Text(sign(each), style),
        )
    return table
