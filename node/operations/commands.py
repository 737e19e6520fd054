"""The commands of `lnnode` for operators. Each imports what it needs when it runs."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from node.errors import Refused
from node.runtime.config import BackendConfig, load
from node.runtime.runtime import SystemRuntime

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}

ApiAddress = Annotated[
    str, typer.Option("--api", envvar="LNNODE_API", help="the backend's API: unix:PATH or HOST:PORT")
]
ApiPassword = Annotated[
    str, typer.Option("--password", envvar="LNNODE_API_PASSWORD", help="where it listens on TCP")
]
ApiAuthority = Annotated[
    str,
    typer.Option(
        "--authority", envvar="LNNODE_API_AUTHORITY", help="authority.pem, where the API speaks TLS"
    ),
]
BackendFile = Annotated[
    Path | None, typer.Option("--config", help="the backend's configuration, instead of --api")
]
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]

PIPED_WIDTH = 160  # columns for who is no terminal: nothing is cut short in a log or a pipe
DEFAULT_API = "unix:~/.lnnode/api.sock"


def register(app: typer.Typer) -> None:
    for command in (cluster, drain, undrain, doctor):
        app.command()(command)
    bundles = typer.Typer(no_args_is_help=True, help="Make a bundle of this release for a cloud.")
    bundles.command()(beanstalk)
    bundles.callback()(_bundles)
    app.add_typer(bundles, name="bundle")


def _bundles() -> None:
    """With one command alone, typer would leave its name out."""


def beanstalk(out: Annotated[Path, typer.Argument(help="the zip file to write")]) -> None:
    """A frontend for AWS Elastic Beanstalk, configured by environment properties."""
    from node.operations.beanstalk import bundle  # noqa: PLC0415 - only here

    typer.echo(f"{out}: {len(bundle(out))} files; upload it, then set LNNODE_BACKEND")


def cluster(
    api: ApiAddress = DEFAULT_API,
    password: ApiPassword = "",
    authority: ApiAuthority = "",
    config: BackendFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the backend and its frontends: sessions, load, versions, link, graph, state."""
    _show(_call(api, password, authority, config, "cluster"), as_json=as_json)


def drain(
    frontend: Annotated[str, typer.Argument(help="its id, as `lnnode cluster` shows it")],
    over: Annotated[str, typer.Option(help="how long moving its peers takes: 60s, 5m, 1h")] = "60s",
    api: ApiAddress = DEFAULT_API,
    password: ApiPassword = "",
    authority: ApiAuthority = "",
    config: BackendFile = None,
) -> None:
    """Have a frontend take no new peers, and move those that it has to the others."""
    seen = _call(api, password, authority, config, "drain", frontend=frontend, over_s=seconds(over))
    typer.echo(f"{frontend}: draining, {seen['sessions']} sessions go within {over}")


def undrain(
    frontend: Annotated[str, typer.Argument(help="its id, as `lnnode cluster` shows it")],
    api: ApiAddress = DEFAULT_API,
    password: ApiPassword = "",
    authority: ApiAuthority = "",
    config: BackendFile = None,
) -> None:
    """Have a drained frontend serve again."""
    _call(api, password, authority, config, "undrain", frontend=frontend)
    typer.echo(f"{frontend}: serves again")


def doctor(
    config: Annotated[Path, typer.Argument(help="a process's YAML configuration")],
    kind: Annotated[
        str | None, typer.Option(help="backend, frontend or standalone; else told by its fields")
    ] = None,
) -> None:
    """Check this host against a configuration, and say what to mend; exit status 1 where it must be."""
    from node.operations.doctor import examine, patient, worst  # noqa: PLC0415 - loads much
    from node.operations.finding import Level  # noqa: PLC0415 - as above

    now_s = SystemRuntime(lambda *_: None).now()
    found = asyncio.run(examine(patient(config, kind), now_s))
    signs = {Level.GOOD: "ok  ", Level.WARNING: "WARN", Level.BAD: "BAD "}
    for each in found:
        typer.echo(f"{signs[each.level]}  {each.text}" + (f"\n      {each.mend}" if each.mend else ""))
    if worst(found) is Level.BAD:
        raise typer.Exit(1)


def seconds(text: str) -> float:
    """60s, 5m, 1h, or seconds alone. Raises Refused."""
    unit = UNITS_S.get(text[-1:])
    number = text if unit is None else text[:-1]
    try:
        value = float(number) * (unit or 1.0)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise Refused(f'"{text}" is no time: say 60s, 5m or 1h')
    return value


def _call(
    address: str, password: str, authority: str, config: Path | None, name: str, **arguments: Any
) -> Any:
    from node.runtime.api_client import Api, api_of, call  # noqa: PLC0415 - a frontend never needs it

    place = Api(address, password, authority) if config is None else api_of(load(BackendConfig, config))
    return call(place, name, **arguments)


def _show(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(view))
        return
    from rich.console import Console  # noqa: PLC0415 - a frontend never needs it

    from node.operations.table import frontends  # noqa: PLC0415 - as above

    node = view["backend"]
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    console.print(
        f"backend {node['version']}, {node['network']}, term {node['epoch']}, block {node['block_height']}, "
        f"{node['channels']} channels"
    )
    if node["chain_trouble"]:
        console.print(f"NO NEW CHANNELS: {node['chain_trouble']}", style="bold red")
    console.print(frontends(view))
