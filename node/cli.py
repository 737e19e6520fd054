"""The command `lnnode`: one process of a node, from one configuration file.

Each command imports what its process runs, and nothing else: a frontend starts sooner and stays smaller without the
backend's libraries.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from node import certs
from node.errors import Ended, Misconfigured, Refused
from node.operations.commands import register
from node.runtime import logs
from node.runtime.config import (
    KINDS,
    BackendConfig,
    FrontendConfig,
    StandaloneConfig,
    load,
)
from node.runtime.documented import documented_defaults
from node.runtime.files import raise_file_limit
from node.runtime.release import release
from node.runtime.runtime import SystemRuntime

if TYPE_CHECKING:  # each command imports what its process runs, and nothing else
    from node.backend.backend import Backend
    from node.backend.commands import Commands
    from node.backend.store import Store
    from node.frontend.frontend import Frontend
    from node.runtime.admin import Complaints
    from node.runtime.http_server import HttpServer
    from node.runtime.metrics import Gather

    Part = tuple[Complaints, Gather]

T = TypeVar("T")

WRONG_CONFIGURATION = 2
FAILED = 1
# How long the loop may keep the interpreter from a thread that has just synced the disk: every message waits for it.
SWITCH_INTERVAL_S = 0.0005

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="A clustered Lightning node: one backend with the channels, frontends with the connections.",
    pretty_exceptions_enable=False,
)
app.add_typer(certs.app, name="certs")
ConfigFile = Annotated[Path | None, typer.Argument(help="YAML configuration; without it, the defaults")]
AcceptOlder = Annotated[
    bool,
    typer.Option(
        "--accept-older-database", help="start on a restored backup; docs/database.md says what that means"
    ),
]


def main() -> None:
    """Entry point: a refusal is one line on stderr and exit status 2."""
    try:
        app()
    except Refused as error:
        print(f"lnnode: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        sys.exit(FAILED if isinstance(error, Ended) else WRONG_CONFIGURATION)


@app.command()
def backend(
    config: ConfigFile = None,
    standby: Annotated[bool, typer.Option(help="wait until the backend that leads stops or dies")] = False,
    accept_older: AcceptOlder = False,
) -> None:
    """Run the backend: channels, wallet, database, graph."""
    with _fields_of(config):
        run_backend(load(BackendConfig, config), standby=standby, accept_older=accept_older)


@contextmanager
def _fields_of(config: Path | None) -> Iterator[None]:
    """What is wrong with a field names the file as well."""
    try:
        yield
    except Misconfigured as error:
        raise Misconfigured(f"{config or 'the defaults'}: {error}") from error


def run_backend(
    settings: BackendConfig,
    store: "Callable[[BackendConfig], Store] | None" = None,
    *,
    standby: bool = False,
    accept_older: bool = False,
) -> None:
    """Run a backend in this process until it is told to stop; `store` opens its database, in a simulation."""
    logs.configure(settings.log, process="backend")
    _run(partial(_backend, settings, store, standby, accept_older))


@app.command()
def frontend(config: ConfigFile = None) -> None:
    """Run a frontend: peers' connections and gossip; no keys, no state."""
    settings = load(FrontendConfig, config)
    name = settings.id or _certified_name(settings) or f"f{os.getpid()}"
    logs.configure(settings.log, process="frontend", id=name)
    _run(lambda runtime, stop: _frontend(settings, name, runtime, stop))


def _certified_name(settings: FrontendConfig) -> str:
    """What a frontend's certificate calls it: the backend takes it under no other name."""
    from node.runtime.certificates import Role, member_of, read_certificate

    if not settings.tls.configured:
        return ""
    try:
        pem = Path(settings.tls.certificate).expanduser().read_bytes()
        member = member_of(read_certificate(pem, settings.tls.certificate))
    except (OSError, Refused):  # said in full when the link is made
        return ""
    return "" if member.role is Role.SHARED else member.name


@app.command()
def standalone(config: ConfigFile = None, accept_older: AcceptOlder = False) -> None:
    """Run a backend and one frontend in one process."""
    settings = load(StandaloneConfig, config)
    logs.configure(settings.backend.log, process="standalone")
    with _fields_of(config):
        _run(partial(_standalone, settings, accept_older))


@app.command()
def backup(
    config: Annotated[Path, typer.Argument(help="the backend's YAML configuration")],
    target: Annotated[Path, typer.Argument(help="a file that is not there yet")],
) -> None:
    """Copy the database, also while the backend runs; docs/database.md says what a copy is good for."""
    from node.backend.backup import take

    typer.echo(take(load(BackendConfig, config), target.absolute()))


@app.command("check-config")
def check_config(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}")],
    config: ConfigFile = None,
    defaults: Annotated[bool, typer.Option(help="print every field with its default and meaning")] = False,
) -> None:
    """Check a configuration file without starting anything."""
    if kind not in KINDS:
        raise Refused(f'"{kind}" is no kind of process; there are {", ".join(KINDS)}')
    if defaults:
        typer.echo(documented_defaults(KINDS[kind]), nl=False)
        return
    settings = load(KINDS[kind], config)
    if isinstance(settings, BackendConfig | FrontendConfig) and settings.tls.configured:
        from node.runtime import tls
        from node.runtime.certificates import Role

        role = Role.BACKEND if isinstance(settings, BackendConfig) else Role.FRONTEND
        tls.check(settings.tls, role)
    typer.echo(f"{config or 'the defaults'}: good")


@app.command("node-key")
def node_key(
    to: Annotated[Path, typer.Argument(help="file to write it to, readable for its owner alone")],
    config: ConfigFile = None,
) -> None:
    """Write the node's key, for frontends that run handshakes themselves: it speaks for the node, moves no money."""
    from node.crypto.derivation import node_secret
    from node.crypto.keys import public_key

    path = load(BackendConfig, config).directory / "seed"
    try:
        secret = node_secret(bytes.fromhex(path.read_text().strip()))
        handle = os.open(to.expanduser(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, ValueError) as error:
        named = getattr(error, "filename", None) or path
        raise Refused(f"{named}: {getattr(error, 'strerror', None) or 'is no seed'}") from error
    with os.fdopen(handle, "w") as file:
        file.write(secret.hex() + "\n")
    typer.echo(f"{to}: key of node {public_key(secret).hex()}")


@app.command("version")
def show_version() -> None:
    """Print the version."""
    typer.echo(release())


register(app)

Work = Callable[[SystemRuntime, asyncio.Event], Awaitable[None]]


def _run(work: Work) -> None:
    """Run until SIGTERM or SIGINT; a task that fails takes the process with it, so that a supervisor restarts it."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    raise_file_limit()
    try:
        import uvloop  # optional: asyncio's own loop does as well, more slowly

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        runner.run(_supervised(work))


async def _supervised(work: Work) -> None:
    stop = asyncio.Event()
    failures: list[BaseException] = []

    def failed(name: str, error: BaseException) -> None:
        if not isinstance(error, Refused):
            logs.get("process").error("task_failed", task=name, error=repr(error), exc_info=error)
        failures.append(error)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(SystemRuntime(failed), stop)
    if failures:
        if isinstance(failures[0], Refused):  # what an operator can mend needs no traceback
            raise failures[0]
        sys.exit(FAILED)


def _announce(**facts: object) -> None:
    """One JSON line on stdout: this process is ready, and here is how to reach it."""
    print(json.dumps({**facts, "pid": os.getpid()}), flush=True)  # noqa: T201 - read by supervisors


async def _backend(
    settings: BackendConfig,
    store: "Callable[[BackendConfig], Store] | None",
    standby: bool,
    accept_older: bool,
    runtime: SystemRuntime,
    stop: asyncio.Event,
) -> None:
    from node.backend.backend import Backend
    from node.runtime.zmq_client import ZmqHints
    from node.standalone import chain_client, lead, open_store

    if standby:
        _announce(ready="standby", link=settings.link_address)
    parts: list[Part] = []  # none yet: a standby is healthy and not ready
    watched = await _watched(settings.admin, parts)
    leading = lead(settings, runtime, store or open_store, standby=standby)
    try:
        database = await _unless(leading, stop)
    except Refused:
        await watched.aclose()
        raise
    if database is None:
        await watched.aclose()
        return
    client, http = chain_client(settings.bitcoind)
    hints = ZmqHints(settings.bitcoind.zmq) if settings.bitcoind.zmq else None
    try:
        node = Backend(runtime, settings, client, database, release(), hints, accept_older=accept_older)
    except Refused:
        await watched.aclose()
        database.close()
        raise
    parts += _of_backend(node) if settings.admin else ()
    server = _api(node.commands, settings)
    try:
        if await _unless(_start(node, server), stop):
            link, api = settings.link_address, settings.api_address
            _announce(ready="backend", node_id=node.node_id.hex(), api=api, link=link)
            await _either(stop, node.stop_requested)
    finally:
        await watched.aclose()
        await server.stop()
        await node.stop()
        await http.close()


async def _frontend(settings: FrontendConfig, name: str, runtime: SystemRuntime, stop: asyncio.Event) -> None:
    from node.frontend.frontend import Frontend

    node = Frontend(runtime, settings, name, release())
    async with await _watched(settings.admin, _of_frontend(node) if settings.admin else ()):
        await node.start()
        await _either(stop, node.listening)
        if not stop.is_set():
            _announce(ready="frontend", id=name, listen=node.address)
        await stop.wait()
        await node.leave()
        await node.stop()


async def _standalone(
    settings: StandaloneConfig, accept_older: bool, runtime: SystemRuntime, stop: asyncio.Event
) -> None:
    from node.standalone import Standalone

    node = Standalone(settings, runtime, accept_older=accept_older)
    api = settings.backend.api_address
    server = _api(node.commands, settings.backend)
    place = settings.backend.admin
    parts = (*_of_backend(node.backend), *_of_frontend(node.frontend)) if place else ()
    watched = await _watched(place, parts)
    try:
        if await _unless(_start(node, server), stop):
            _announce(ready="standalone", node_id=node.node_id.hex(), api=api, listen=node.listen_address)
            await _either(stop, node.backend.stop_requested)
    finally:
        await watched.aclose()
        await server.stop()
        await node.stop()


def _api(commands: "Commands", settings: BackendConfig) -> "HttpServer":
    from node.backend.api import Api
    from node.runtime.http_server import HttpServer

    api = Api(commands, settings.api_password, settings.api_read_password, settings.api_onion_password)
    files = (settings.tls.certificate, settings.tls.key) if settings.api_tls else None
    return HttpServer(api.application, settings.api_address, files)


def _of_backend(node: "Backend") -> "tuple[Part, ...]":
    from node.backend import health, metrics

    return ((lambda: health.complaints(node), lambda: metrics.gather(node)),)


def _of_frontend(node: "Frontend") -> "tuple[Part, ...]":
    from node.frontend import health, metrics

    return ((lambda: health.complaints(node), lambda: metrics.gather(node)),)


async def _watched(address: str, parts: "Sequence[Part]") -> AsyncExitStack:
    """The admin listener, where one is wanted, until the stack is closed; `parts` may be added to."""
    stack = AsyncExitStack()
    if address:
        from node.runtime.admin import admin
        from node.runtime.metrics import registry

        def complaints() -> list[str]:
            return [reason for ask, _ in parts for reason in ask()] if parts else ["standing by, or starting"]

        place = await stack.enter_async_context(
            admin(address, complaints, registry(lambda: chain.from_iterable(gather() for _, gather in parts)))
        )
        logs.get("process").info("admin", address=place)
    return stack


class Startable(Protocol):
    async def start(self) -> None: ...


async def _start(*parts: Startable) -> bool:
    """One after the other; True once all have."""
    for part in parts:
        await part.start()
    return True


async def _unless(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """What `work` returns; None if `stop` comes first."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait((working,))
        return None
    return await working


async def _either(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
