"""`lnsim explore`: random faults over many seeds in world mode; what breaks is made small and told how to see again."""

import itertools
import json as json_format
import os
import re
import shlex
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lnsim.explore.search import Found, search, smallest
from lnsim.explore.world import what_breaks
from lnsim.scenario.load import dump, load
from lnsim.scenario.model import Scenario
from node.errors import Refused

BROKEN = 1
WRONG_FILE = 2
TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
SECONDS = {"s": 1, "m": 60, "h": 3_600}


def explore(
    file: Annotated[
        Path | None, typer.Argument(help="Faults come on top of this scenario; else of small random ones.")
    ] = None,
    *,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many; without it, until the time is up.")
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="The first seed; the others follow.")] = 0,
    time_: Annotated[str, typer.Option("--time", help="At most so long: 60s, 10m.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    keep_going: Annotated[bool, typer.Option(help="Past failures, and without making them small.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Nothing but a summary on the last line.")] = False,
) -> None:
    """Run random faults over many seeds; exit status 1 and the smallest failing scenario if something breaks."""
    try:
        scenario = None if file is None else load(file)
        until_s = _seconds(time_) if time_ else None
    except Refused as error:
        _fail(str(error))
    if seeds is None and until_s is None:
        seeds = 100
    numbers = itertools.count(first) if seeds is None else iter(range(first, first + seeds))
    began_s, done, broken = time.perf_counter(), 0, []
    for tried in search(scenario, numbers, jobs, until_s, what_breaks):
        done += 1
        elapsed_s = time.perf_counter() - began_s
        if tried.complaints:
            broken.append(tried)
            typer.echo(f"seed {tried.seed}: {'; '.join(tried.complaints)}", err=json)
            if not keep_going:
                break
        elif not json:
            typer.echo(f"\r{done} seeds in {elapsed_s:.0f} s, {len(broken)} broken ", nl=False)
    if not json:
        typer.echo()
    elapsed_s = time.perf_counter() - began_s
    lines = [] if keep_going else [_tell(smallest(tried, what_breaks), quiet=json) for tried in broken]
    if json:
        summary = {
            "seeds": done,
            "seconds": elapsed_s,
            "broken": [t.seed for t in broken],
            "reproduce": lines,
        }
        typer.echo(json_format.dumps(summary))
    else:
        typer.echo(f"{done} seeds, {len(broken)} broken, {elapsed_s:.0f} s")
    if broken:
        raise typer.Exit(BROKEN)


def _tell(found: Found, *, quiet: bool) -> str:
    """Write the small scenario where we are, and say how to run it."""
    path = Path(f"explore-{found.seed}.yaml")
    path.write_text(dump(found.scenario))
    line = shlex.join(["lnsim", "run", str(path), "--world", "--seed", str(found.seed)])
    if not quiet:
        typer.echo(f"made small in {found.runs} runs: {_size(found.scenario)}")
        for complaint in found.complaints:
            typer.echo(f"  {complaint}")
        typer.echo(f"reproduce with: {line}")
    return line


def _size(scenario: Scenario) -> str:
    peers = sum(spec.count for spec in scenario.topology.peers.values())
    frontends = scenario.topology.cluster.frontends
    return f"{len(scenario.workloads)} workloads, {peers} peers, {frontends} frontends, {scenario.duration_s:g} s"


def _seconds(text: str) -> float:
    found = TIME.fullmatch(text)
    if found is None:
        raise Refused(f"--time {text}: write it as 60s, 10m or 2h")
    return float(found[1]) * SECONDS[found[2]]


def _fail(text: str) -> NoReturn:
    typer.echo(f"lnsim: {text}", err=True)
    raise typer.Exit(WRONG_FILE)
