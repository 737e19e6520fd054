"""`lnsim run FILE`: one scenario, in real processes or in one virtual world, and its verdict."""

import re
import secrets
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console

from lnsim.report import directory as reports
from lnsim.report import verdict
from lnsim.run.execute import Where, execute
from lnsim.run.show import Lines, Quiet, Screen, Show
from lnsim.scenario.load import load
from node.errors import Refused

FALLS_SHORT = 1
WRONG_FILE = 2
MAX_SEED = 1_000_000
PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*@")  # of an RPC, in a URL: reports are shown to others


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
    target: Annotated[
        str,
        typer.Option(metavar="NODE_ID@HOST:PORT", help="Aim at a node that is there already, of any kind."),
    ] = "",
    chain: Annotated[
        str, typer.Option(metavar="URL", help="http://USER:PASSWORD@HOST:PORT, the target's regtest RPC.")
    ] = "",
    chain_cookie: Annotated[Path | None, typer.Option(help="bitcoind's .cookie, in place of a user.")] = None,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The peers live on this Ray cluster: auto, or HOST:PORT.")
    ] = "",
    listen: Annotated[
        str, typer.Option(metavar="HOST", help="With --ray: this machine's address, as its nodes reach it.")
    ] = "",
) -> None:
    """Run one scenario; exit status 0 if everything held, 1 if not, 2 for a file that can't be run."""
    try:
        scenario = load(file, set_ or ())
        where = Where.of(
            world=world, target=target, chain=chain, chain_cookie=chain_cookie, ray=ray, listen=listen
        )
        chosen = seed if seed is not None else scenario.seed
        chosen = secrets.randbelow(MAX_SEED) if chosen is None else chosen
        result = execute(scenario, chosen, where, _again(chosen), Quiet() if json else _show())
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
    kept = [PASSWORD.sub(r"\1:...@", each) for each in kept]
    return shlex.join(["lnsim", *kept, "--seed", str(seed)])


def _fail(text: str) -> NoReturn:
    typer.echo(f"lnsim: {text}", err=True)
    raise typer.Exit(WRONG_FILE)
