"""An HTTP server for an ASGI application, on the running loop; ends with the process, takes no signals."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from node.runtime.addresses import split_address

BACKLOG = 128


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM is the node's own business."""
        yield


def _leave_for_owner(path: str) -> None:
    """A socket file with the rights that ours is to have: uvicorn keeps those, and opens a new one to everybody."""
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(path)
        Path(path).chmod(0o600)


class HttpServer:
    def __init__(self, application: Any, address: str, tls: tuple[str, str] | None = None) -> None:
        """`tls`: files of a certificate and its key."""
        kind, host, port = split_address(address)
        place: dict[str, Any] = {"uds": host} if kind == "unix" else {"host": host, "port": port}
        if tls is not None and kind == "tcp":
            place |= {
                "ssl_certfile": str(Path(tls[0]).expanduser()),
                "ssl_keyfile": str(Path(tls[1]).expanduser()),
            }
        if kind == "unix":
            _leave_for_owner(host)
        self._server = _Server(
            uvicorn.Config(
                application,
                **place,
                lifespan="off",
                log_config=None,
                access_log=False,
                backlog=BACKLOG,
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once it listens. Raises OSError where it can't."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                await self._task
                raise OSError("the HTTP server did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
