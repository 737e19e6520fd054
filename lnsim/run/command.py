"""`lnsim run FILE`: one scenario, in real processes or in one virtual world, and its verdict."""

import asyncio
import datetime as dt
import secrets
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console

from lnsim.metrics.recorder import Recorder
from lnsim.report import directory as reports
from lnsim.report import verdict
from lnsim.report.result import RunResult
from lnsim.run.runner import Origin, Run
from lnsim.run.show import Lines, Quiet, Screen, Show
from lnsim.run.timing import Clock
from lnsim.scenario.load import load
from lnsim.scenario.model import Scenario
from node.errors import Refused

FALLS_SHORT = 1
WRONG_FILE = 2
MAX_SEED = 1_000_000


def run(
    file: Annotated[Path, typer.Argument(help="The scenario, a YAML file.")],
    *,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn; else the file's, or any.")
    ] = None,
    world: Annotated[
        bool, typer.Option("--world", help="One process on virtual time: same seed, same trace.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="No view; the result on the last line.")] = False,
    report: Annotated[Path | None, typer.Option(help="A directory for the report and the result.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="PATH=VALUE: another value for a field; repeatable.")
    ] = None,
) -> None:
    """Run one scenario; exit status 0 if everything held, 1 if not, 2 for a file that can't be run."""
    try:
        scenario = load(file, set_ or ())
        mode = _mode(scenario, world=world)
        chosen = seed if seed is not None else scenario.seed
        chosen = secrets.randbelow(MAX_SEED) if chosen is None else chosen
        result = execute(scenario, chosen, mode, _again(chosen), Quiet() if json else _show())
        if report is not None:
            reports.write(result, report)
    except Refused as error:
        _fail(str(error))
    if json:
        typer.echo(msgspec.json.encode(result).decode())
    else:
        Console().print(verdict.render(result))
    if report is not None and not json:
        typer.echo(f"report: {report / reports.PAGE}")
    if not result.holds:
        raise typer.Exit(FALLS_SHORT)


def execute(scenario: Scenario, seed: int, mode: str, command: str, show: Show) -> RunResult:
    """One run in this process, with its children where it has any."""
    started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    origin = Origin(mode, command, started)
    if mode == "world":
        from lnsim.world.main import run_world  # noqa: PLC0415 - each mode imports what it needs

        return run_world(scenario, seed, origin, show)
    return asyncio.run(_in_cluster(scenario, seed, origin, show))


async def _in_cluster(scenario: Scenario, seed: int, origin: Origin, show: Show) -> RunResult:
    from lnsim.cluster_stage import ClusterStage  # noqa: PLC0415 - each mode imports what it needs

    clock = Clock()
    stage = ClusterStage(scenario, seed, Recorder(clock.now_s), show.say)
    run = Run(stage, clock, origin, show.say)
    showing = asyncio.create_task(show.run(run))
    try:
        return await run.run()
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


def _mode(scenario: Scenario, *, world: bool) -> str:
    mode = "world" if world else "cluster"
    if mode not in scenario.modes:
        raise Refused(f"{scenario.name}: makes sense in {' and '.join(scenario.modes)} mode only (modes)")
    return mode


def _show() -> Show:
    return Screen() if sys.stdout.isatty() else Lines()


def _again(seed: int) -> str:
    """The line that does the same again."""
    arguments = [each for each in sys.argv[1:] if each != "--json"]
    kept, skip = [], False
    for each in arguments:
        if skip or each.startswith(("--seed=", "--report=")):
            skip = False
        elif each in ("--seed", "--report"):
            skip = True
        else:
            kept.append(each)
    return shlex.join(["lnsim", *kept, "--seed", str(seed)])


def _fail(text: str) -> NoReturn:
    typer.echo(f"lnsim: {text}", err=True)
    raise typer.Exit(WRONG_FILE)
