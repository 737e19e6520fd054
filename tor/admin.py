"""The local admin endpoint: status, metrics and draining on a Unix socket; metrics alone on a port, where wanted."""

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tor.config import split_address
from tor.errors import Refused, Unavailable

BACKLOG = 16
ANSWER_S = 5.0
METRICS_TYPE = "text/plain; version=0.0.4"

Picture = Callable[[], dict[str, Any]]
Drain = Callable[[str, bool], None]


def application(picture: Picture, drain: Drain, registry: CollectorRegistry) -> Starlette:
    """All that its owner may ask."""

    async def show(_: Request) -> Response:
        return JSONResponse(picture())

    async def set_drained(request: Request) -> Response:
        target = request.query_params.get("target", "")
        try:
            drain(target, request.path_params["what"] == "drain")
        except Refused as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(picture())

    return Starlette(
        routes=[
            Route("/status", show),
            Route("/metrics", _metrics(registry)),
            Route("/{what:str}/target", set_drained, methods=["POST"]),
        ]
    )


def metrics_application(registry: CollectorRegistry) -> Starlette:
    """What a port may show."""
    return Starlette(routes=[Route("/metrics", _metrics(registry))])


def _metrics(registry: CollectorRegistry) -> Callable[[Request], Response]:
    def show(_: Request) -> Response:
        return PlainTextResponse(generate_latest(registry), media_type=METRICS_TYPE)

    return show


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own business."""
        yield


class Endpoint:
    """One application on one listening socket."""

    def __init__(self, application: Starlette, listening: socket.socket) -> None:
        self._listening = listening
        self._server = _Server(
            uvicorn.Config(
                application,
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._listening]))

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._listening.close()


def listen_unix(path: Path) -> socket.socket:
    """A socket that only its owner can open. Raises Refused where it can't be, or where another lntor answers."""
    if path.is_socket() and _answers(path):
        raise Refused(f"admin.socket: {path}: another lntor listens there; end it, or give this one its own")
    listening = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise Refused(
            f"admin.socket: {path}: {error.strerror or error}; name a path that lntor can write"
        ) from error
    return listening


def remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def listen_tcp(address: str) -> socket.socket:
    host, port = split_address(address, "admin.metrics")
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Refused(f"admin.metrics: {address}: {error.strerror}; choose another") from error


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(ANSWER_S)
        return caller.connect_ex(str(path)) == 0


class _Caller(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lntor", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(path: str, method: str, request: str) -> dict[str, Any]:
    """Ask a running lntor. Raises Unavailable where none answers, Refused where it says no."""
    caller = _Caller(path)
    try:
        caller.request(method, request)
        answer = json.loads(caller.getresponse().read())
    except PermissionError as error:
        raise Refused(f"{path}: permission denied; call this as the user that lntor runs as") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(
            f"no lntor answers at {path} ({error}); is `lntor run` running, with this configuration?"
        ) from error
    finally:
        caller.close()
    if "error" in answer:
        raise Refused(answer["error"])
    assert isinstance(answer, dict), "status is a mapping"
    return answer
