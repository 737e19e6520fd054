"""The command `lntor`: one onion service in front of a node's frontends, kept up for as long as it runs."""

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import structlog
import typer

from tor import admin, keyfile, status
from tor.check import BAD, findings
from tor.config import Config, Log, documented_defaults, load
from tor.errors import Refused, Unavailable
from tor.server import Server
from tor.torrc import torrc

REFUSED = 2
UNAVAILABLE = 1

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="One onion service in front of several frontends, kept up for as long as this runs.",
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="YAML configuration")]
DEFAULT = Path("/etc/lntor/tor.yaml")
AsJson = Annotated[bool, typer.Option("--json", help="for programs")]


def main() -> None:
    """Entry point: what a person has to mend is one line on stderr and exit status 2; what may pass, status 1."""
    try:
        app()
    except Refused as error:
        print(f"lntor: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        sys.exit(REFUSED)
    except Unavailable as error:
        print(f"lntor: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        sys.exit(UNAVAILABLE)


@app.command()
def run(config: ConfigFile = DEFAULT) -> None:
    """Serve, until SIGTERM. SIGHUP reads the targets again."""
    settings = load(config)
    _configure_log(settings.log)
    if settings.service.single_hop_mode:
        structlog.get_logger().warning("not_anonymous", why="single hop mode shows where this service is")
    asyncio.run(_run(settings, config))


@app.command()
def address(config: ConfigFile = DEFAULT) -> None:
    """Print ADDRESS.onion:PORT."""
    settings = load(config)
    known = None
    if settings.service.mode == "directory":
        known = keyfile.address_in(Path(settings.service.directory))
    if known is None:
        typer.echo(_known_address(admin.call(settings.admin.socket, "GET", "/status")))
    else:
        typer.echo(f"{known}.onion:{settings.service.port}")


@app.command("status")
def show_status(config: ConfigFile = DEFAULT, as_json: AsJson = False) -> None:
    """Show the service, its targets and their health."""
    picture = admin.call(load(config).admin.socket, "GET", "/status")
    typer.echo(json.dumps(picture, indent=2) if as_json else status.text(picture))


@app.command()
def drain(target: str, config: ConfigFile = DEFAULT) -> None:
    """Give this target no new connections; those that are open stay."""
    _drain(config, target, "drain")


@app.command()
def undrain(target: str, config: ConfigFile = DEFAULT) -> None:
    """Give this target connections again."""
    _drain(config, target, "undrain")


@app.command()
def check(config: ConfigFile = DEFAULT, as_json: AsJson = False) -> None:
    """Say what is wrong with this host's tor, and what to change; status 1 if something is."""
    found = asyncio.run(findings(load(config)))
    if as_json:
        facts = [{"level": each.level, "about": each.about, "text": each.text} for each in found]
        typer.echo(json.dumps(facts, indent=2))
    else:
        for each in found:
            typer.echo(f"{each.level:8}{each.about}: {each.text}")
    if any(each.level == BAD for each in found):
        raise typer.Exit(UNAVAILABLE)


@app.command("torrc")
def show_torrc(
    config: ConfigFile = DEFAULT,
    service: Annotated[
        bool, typer.Option(help="also the service, so that tor serves from its start on")
    ] = False,
) -> None:
    """Print the lines that torrc needs."""
    typer.echo(torrc(load(config), with_service=service), nl=False)


@app.command("config")
def show_config() -> None:
    """Print every field of the configuration with its default and meaning."""
    typer.echo(documented_defaults(), nl=False)


async def _run(settings: Config, path: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Server(settings, path).run(stop)


def _drain(config: Path, target: str, what: str) -> None:
    settings = load(config)
    picture = admin.call(settings.admin.socket, "POST", f"/{what}/target?target={quote(target, safe='')}")
    typer.echo(status.text(picture))


def _known_address(picture: dict[str, Any]) -> str:
    if not picture["address"]:
        raise Unavailable("the address is not known yet: tor has not served it so far; see `lntor status`")
    return str(picture["address"])


def _configure_log(log: Log) -> None:
    renderer: Any = structlog.processors.JSONRenderer()
    if log.format == "text":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[log.level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
