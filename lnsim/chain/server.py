"""The embedded chain behind bitcoind's interfaces: JSON-RPC over HTTP with Basic authentication, and ZMQ."""

import asyncio
import contextlib
import errno
import hmac
import secrets
import socket
from base64 import b64decode
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
import zmq
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lnsim.chain.chain import Chain
from lnsim.chain.embedded import DEFAULT_BLOCKS, DEFAULT_SEED, EmbeddedNode
from lnsim.chain.rpc import answer
from lnsim.chain.zmq_publisher import ZmqPublisher

HOST = "127.0.0.1"
COOKIE_USER = "__cookie__"
COOKIE_FILE = ".cookie"
MAX_BODY = 32 * 1024 * 1024  # bitcoind's own limit
MAX_START_ROUNDS = 1_000
POLL_S = 0.001


class ServerOptions(Struct, frozen=True, kw_only=True):
    """Port 0 takes a free one; without a password a cookie file is written into `datadir`."""

    datadir: Path | None = None
    host: str = HOST
    rpc_port: int = 0
    zmq_port: int | None = 0
    user: str | None = None
    password: str | None = None
    blocks: int = DEFAULT_BLOCKS
    wallet: str = ""
    wallet_seed: bytes = DEFAULT_SEED


class Endpoint(Struct, frozen=True):
    rpc_url: str
    rpc_port: int
    user: str
    password: str
    cookie_file: str | None
    zmq: str | None


class PortRefused(Exception):  # noqa: N818 - a fact about this machine, told to the user
    """A port that cannot be listened on; the text names the option that chose it."""

    def __init__(self, option: str, port: int, error: OSError | zmq.ZMQError) -> None:
        why = f": {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            why = " is in use; choose another, or 0 for a free one"
        super().__init__(f"--{option} {port}{why}")


class ChainServer:
    """`async with ChainServer(now, options) as server`: a running chain; `server.node` is what it serves."""

    def __init__(self, now: Callable[[], float], options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.node = EmbeddedNode(
            now,
            datadir=self.options.datadir,
            blocks=self.options.blocks,
            wallet=self.options.wallet,
            wallet_seed=self.options.wallet_seed,
        )
        self._publisher: ZmqPublisher | None = None
        self._task: asyncio.Task[None] | None = None
        self._user = self.options.user or COOKIE_USER
        self._password = self.options.password or secrets.token_hex(32)

    @property
    def chain(self) -> Chain:
        return self.node.chain

    async def __aenter__(self) -> Self:
        """Raises PortRefused."""
        try:
            await self._start()
        except BaseException:
            self._close()
            raise
        return self

    async def _start(self) -> None:
        if self.options.zmq_port is not None:
            self._publisher = _publisher(self.options.host, self.options.zmq_port)
            self.chain.subscribe(self._publisher.receive)
        listener = _listener(self.options.host, self.options.rpc_port)
        # asyncio switches Nagle off only where it knows the protocol, which a listener of ours does not say.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = _Server(
            uvicorn.Config(self._application(), log_config=None, access_log=False, lifespan="off", ws="none")
        )
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(POLL_S)
        self.endpoint = self._announce(listener.getsockname()[1])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        if self._task:
            await self._task
        if self.endpoint.cookie_file:
            _remove(self.endpoint.cookie_file)
        self._close()

    def _close(self) -> None:
        if self._publisher:
            self._publisher.close()
        self.node.close()

    def _announce(self, port: int) -> Endpoint:
        cookie = None
        if self.options.password is None and self.options.datadir is not None:
            cookie = self.options.datadir / COOKIE_FILE
            cookie.write_text(f"{self._user}:{self._password}")
            cookie.chmod(0o600)
        zmq_address = self._publisher.address if self._publisher else None
        shown = str(cookie) if cookie else None
        return Endpoint(
            f"http://{self.options.host}:{port}", port, self._user, self._password, shown, zmq_address
        )

    def _application(self) -> Starlette:
        routes = [
            Route("/", self._handle, methods=["POST"]),
            Route("/wallet/{name:path}", self._handle, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _handle(self, request: Request) -> Response:
        if not self._authorized(request.headers.get("authorization", "")):
            return Response(status_code=401, headers={"WWW-Authenticate": 'Basic realm="jsonrpc"'})
        if int(request.headers.get("content-length", "0")) > MAX_BODY:
            return Response(status_code=413)
        zmq_address = self._publisher.address if self._publisher else None
        session = self.node.session(request.path_params.get("name"), zmq_address)
        status, body = answer(await request.body(), session)
        return Response(body, status, media_type="application/json")

    def _authorized(self, header: str) -> bool:
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = b64decode(encoded, validate=True)
        except ValueError:
            return False
        return hmac.compare_digest(given, f"{self._user}:{self._password}".encode())


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise PortRefused("rpc-port", port, error) from error


def _publisher(host: str, port: int) -> ZmqPublisher:
    try:
        return ZmqPublisher(host, port)
    except zmq.ZMQError as error:
        raise PortRefused("zmq-port", port, error) from error


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn inside somebody else's process: signals are not its business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
