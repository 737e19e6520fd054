"""An HTTP server for an ASGI application, on the running loop; ends with the process, takes no signals."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from node.errors import Refused
from node.runtime.addresses import join_address, split_address

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


def _bound(host: str, port: int) -> socket.socket:
    """Bound here and not by uvicorn, which ends the process where a port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Refused(f"{join_address(host, port)}: {error.strerror}; choose another address") from error


class HttpServer:
    def __init__(self, application: Any, address: str, tls: tuple[str, str] | None = None) -> None:
        """Takes its address at once; `tls`: files of a certificate and its key. Raises Refused where it can't have it."""
        kind, host, port = split_address(address)
        certificate, key = (
            (str(Path(each).expanduser()) for each in tls) if tls and kind == "tcp" else (None, None)
        )
        self._sockets: list[socket.socket] | None = None
        self.address = address
        if kind == "unix":
            _leave_for_owner(host)
        else:
            self._sockets = [_bound(host, port)]
            bound = self._sockets[0].getsockname()
            self.address = join_address(bound[0], bound[1])
        self._server = _Server(
            uvicorn.Config(
                application,
                uds=host if kind == "unix" else None,
                ssl_certfile=certificate,
                ssl_keyfile=key,
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
        self._task = asyncio.get_running_loop().create_task(self._server.serve(self._sockets))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise OSError("the HTTP server did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        for each in self._sockets or ():
            each.close()
