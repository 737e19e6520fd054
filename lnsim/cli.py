"""`lnsim`: the simulator's command line."""

import asyncio
import secrets
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from lnsim.api_client import CallFailed
from lnsim.chain.command import chain
from lnsim.cluster_process import ProcessFailed
from lnsim.demo import Stopped, holds, run
from lnsim.demo_options import MAX_FRONTENDS, NAMES, BadArgument, Options, check_faults, duration, fault
from lnsim.demo_place import NoDemo, tell
from lnsim.explore.command import explore
from lnsim.report.command import compare
from lnsim.run.command import run as run_scenario
from lnsim.view_live import choose_show
from node.errors import Refused

BAD_USAGE = 2  # exit status for what the user can put right
BROKEN = 1
INTERRUPTED = 130
MAX_SEED = 1_000_000

app = typer.Typer(
    help="Loads a clustered Lightning node, breaks it, and proves that nothing was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
demo_app = typer.Typer(
    help="A cluster, peers and payments on this machine, live.", invoke_without_command=True
)
app.add_typer(demo_app, name="demo")
app.command()(chain)
app.command("run")(run_scenario)
app.command()(explore)
app.command()(compare)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lnsim {version('lnsim')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which version.")
    ] = False,
) -> None:
    pass


@demo_app.callback()
def demo(
    context: typer.Context,
    *,
    for_: Annotated[str, typer.Option("--for", help="End after so long: 20s, 5m.")] = "",
    json: Annotated[bool, typer.Option("--json", help="No view; a summary on the last line.")] = False,
    seed: Annotated[int | None, typer.Option(help="Who pays whom, when and how much.")] = None,
    peers: Annotated[int, typer.Option(min=2, max=len(NAMES), help="Simulated peers.")] = 5,
    frontends: Annotated[int, typer.Option(min=1, max=MAX_FRONTENDS, help="Frontends.")] = 2,
    kill: Annotated[
        list[str] | None, typer.Option(help="frontend@8s, f1@3s, backend@5s, tor@6s; repeatable.")
    ] = None,
    tor: Annotated[
        bool, typer.Option("--tor", help="Peers come by an onion address, in a Tor network of its own.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(hidden=True, help="An SVG of the view's last moment.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="Payments a second to begin.")] = 30.0,
) -> None:
    """Start chain, backend, frontends and peers, and pay through them until told to stop."""
    if context.invoked_subcommand:
        return
    try:
        options = Options(
            for_s=duration(for_) if for_ else None,
            seed=secrets.randbelow(MAX_SEED) if seed is None else seed,
            peers=peers,
            frontends=frontends,
            rate_per_s=rate,
            faults=tuple(fault(text) for text in kill or ()),
            tor=tor,
        )
        check_faults(options)
    except BadArgument as error:
        _fail(str(error), BAD_USAGE)
    try:
        summary = asyncio.run(run(options, choose_show(quiet=json, picture=picture)))
    except Stopped:
        _fail("stopped before the first payment", INTERRUPTED)
    except Refused as error:
        _fail(str(error), BAD_USAGE)
    except (ProcessFailed, CallFailed) as error:
        _fail(str(error), BROKEN)
    if json:
        typer.echo(msgspec.json.encode(summary).decode())
    else:
        _tell(summary)
    if not holds(summary):
        typer.echo(f"reproduce with: lnsim demo --seed {options.seed} {_again(options)}", err=True)
        raise typer.Exit(BROKEN)


@demo_app.command("kill")
def kill_command(
    what: Annotated[
        str, typer.Argument(help="frontend (the busiest), f1, f2 ..., backend or tor")
    ] = "frontend",
) -> None:
    """Kill a process of the demo that runs in another terminal."""
    answer = _command({"kill": what})
    typer.echo(f"killed {answer['killed']}")


@demo_app.command("address")
def address_command() -> None:
    """How to connect a peer of your own to the demo that runs in another terminal."""
    for name, value in _command({"address": True}).items():
        typer.echo(f"{name:9} {value}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def bench(context: typer.Context) -> None:
    """Measure the node, each figure beside the limit of this machine."""
    from lnsim.bench.command import main as bench_main  # noqa: PLC0415 - numpy and the graph only where wanted

    bench_main(context.args)


def _command(command: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = asyncio.run(tell(command))
    except NoDemo as error:
        _fail(str(error), BAD_USAGE)
    if "error" in answer:
        _fail(answer["error"], BAD_USAGE)
    return answer


def _tell(summary: dict[str, Any]) -> None:
    payments, invariants = summary["payments"], summary["invariants"]
    typer.echo(
        f"{payments['settled']} of {payments['attempted']} payments settled in {summary['duration_s']:.0f} s, "
        f"p50 {payments['p50_ms']:.0f} ms, p99 {payments['p99_ms']:.0f} ms (seed {summary['seed']})"
    )
    for complaint in summary["complaints"]:
        typer.echo(f"  {complaint}", err=True)
    words = "every msat accounted for" if invariants["msat_conserved"] else "MSAT NOT CONSERVED"
    typer.echo(
        f"{words}, HTLCs lost {invariants['htlcs_lost']}, channels closed {invariants['channels_closed']}, "
        f"processes left {invariants['processes_left']}"
    )


def _again(options: Options) -> str:
    more = " ".join([*(["--tor"] if options.tor else []), *map(str, options.faults)])
    return f"--peers {options.peers} --frontends {options.frontends} --rate {options.rate_per_s:g} {more}".strip()


def _fail(text: str, status: int) -> NoReturn:
    typer.echo(f"lnsim: {text}", err=True)
    raise typer.Exit(status)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
