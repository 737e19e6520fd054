"""The figures as a table for people."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from lnsim.bench.registry import Benchmark, Figures, Goal


def table() -> Table:
    """An empty one; `add` fills it."""
    result = Table(title="lnsim bench", title_justify="left", pad_edge=False)
    result.add_column("benchmark")
    result.add_column("figure")
    result.add_column("measured", justify="right")
    result.add_column("goal", justify="right")
    return result


def add(result: Table, benchmark: Benchmark, figures: Figures) -> None:
    """All figures of one benchmark, its name beside the first."""
    goals = {goal.path: goal for goal in benchmark.goals}
    title = Text.assemble((benchmark.name, "bold"), f"  {benchmark.about}")
    for path, value in _flat(figures, ()):
        goal = goals.get(path)
        style = "" if goal is None else "green" if goal.met(value) else "red"
        result.add_row(title, " ".join(path).replace("_", " "), Text(_number(value), style), _wanted(goal))
        title = Text("")
    result.add_section()


def _flat(figures: Figures, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, (*path, name))
        else:
            yield (*path, name), value


def _number(value: float) -> str:
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"


def _wanted(goal: Goal | None) -> str:
    if goal is None:
        return ""
    if goal.at_least is not None:
        return f">= {_number(goal.at_least)}"
    assert goal.at_most is not None
    return f"<= {_number(goal.at_most)}"
