"""`lnsim compare RUN1 RUN2`: two runs side by side."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lnsim.report import compare_page, compare_table, directory
from lnsim.report.compare import compare as compare_results
from node.errors import Refused

WRONG_FILE = 2
PAGE = "compare.html"


def compare(
    run1: Annotated[Path, typer.Argument(help="A directory written by --report, or its result.json.")],
    run2: Annotated[Path, typer.Argument(help="Another, to be seen beside it.")],
    *,
    report: Annotated[Path | None, typer.Option(help="A directory for the page with the plots.")] = None,
) -> None:
    """Show what changed from one run to another; exit status 2 for a file that is no result."""
    try:
        comparison = compare_results(directory.read(run1), directory.read(run2))
        if report is not None:
            directory.write_page(compare_page.render(comparison), report / PAGE)
    except Refused as error:
        typer.echo(f"lnsim: {error}", err=True)
        raise typer.Exit(WRONG_FILE) from None
    Console().print(compare_table.render(comparison))
    if report is not None:
        typer.echo(f"report: {report / PAGE}")
