"""`lnsim bench`: run benchmarks, show them to people, hand them to machines."""

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from msgspec.structs import replace
from rich.console import Console

from lnsim.bench import plan as plans
from lnsim.bench import table
from lnsim.bench.registry import BENCHMARKS, Figures
from lnsim.graph_generator import CHANNELS

BAD_USAGE = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main(arguments: list[str]) -> None:
    """Run with the arguments of a command line; ends the process."""
    app(arguments, prog_name="lnsim bench")


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Which: {', '.join(BENCHMARKS)}; none: all."),
    ] = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="Figures as JSON on the last line, no table.")] = False,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.05, help="How long each measurement takes.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: rough figures within a minute.")
    ] = False,
    database: Annotated[
        str, typer.Option("--database", help="URL of an empty PostgreSQL database, for `store`.")
    ] = "",
) -> None:
    """Measure the node against the limits of this machine."""
    chosen = list(dict.fromkeys(names or BENCHMARKS))
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        typer.echo(f"lnsim: no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}", err=True)
        raise typer.Exit(BAD_USAGE)
    # a short path: Unix sockets live in it
    with tempfile.TemporaryDirectory(prefix="lnsim-bench-") as directory:
        plan = plans.quick(Path(directory)) if quick else plans.Plan(directory=Path(directory))
        plan = replace(plan, seconds=plan.seconds if seconds is None else seconds, database=database)
        figures = measure(chosen, plan)
    if json:
        typer.echo(msgspec.json.encode(_rounded(figures)).decode())
    else:
        _show(figures, plan)


def measure(names: list[str], plan: plans.Plan) -> dict[str, Figures]:
    """Run them one after the other; who watches sees on stderr which one is running."""
    console = Console(stderr=True)
    figures: dict[str, Figures] = {}
    for name in names:
        with console.status(f"{name}: {BENCHMARKS[name].about}"):
            figures[name] = BENCHMARKS[name].run(plan)
    return figures


def _show(figures: dict[str, Figures], plan: plans.Plan) -> None:
    result = table.table()
    for name, found in figures.items():
        table.add(result, BENCHMARKS[name], found)
    console = Console()
    console.print(result)
    if plan.channels < CHANNELS and any(BENCHMARKS[name].graph for name in figures):
        console.print(
            f"A graph of {plan.channels:,} channels: goals are meant for {CHANNELS:,}.", style="dim"
        )


def _rounded(figures: Figures) -> Figures:
    """Five digits say more than is known."""
    return {
        name: _rounded(value) if isinstance(value, dict) else float(f"{value:.5g}")
        for name, value in figures.items()
    }
