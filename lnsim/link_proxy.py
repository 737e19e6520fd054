"""Between frontends and backend: a small process that can cut, clog and delay the link of each frontend.

`python -m lnsim.link_proxy BACKEND FRONTEND=ADDRESS ...`: frontends connect to an address each, the proxy to the
backend. Commanded by JSON lines (`lnsim.json_lines`): target a frontend, name `set`, `{state, delay_s}`. Bytes stay in
order whatever happens, and nobody can send more than the other end takes.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Struct

from lnsim.api_client import CallFailed
from lnsim.bench.loop import run
from lnsim.json_lines import Server
from lnsim.stage import LinkState
from node.errors import Refused
from node.runtime.runtime import Listener, Runtime, SystemRuntime

ARGV = (sys.executable, "-m", "lnsim.link_proxy")
MAX_HELD_BYTES = 4 << 20  # of one direction on their way; then reading waits


class Setting(Struct, frozen=True, forbid_unknown_fields=True):
    """How a link is. Nothing of it is remembered by what goes through: it holds for bytes that come from now on."""

    state: LinkState = LinkState.OPEN
    delay_s: Annotated[float, Meta(ge=0)] = 0.0


class Pipe:
    """One direction of a connection: what comes in at one end goes out at the other, later or when it may."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._setting = Setting()
        self._held: deque[tuple[float, bytes]] = deque()  # (when it is due, bytes)
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._source: asyncio.Transport | None = None
        self._sink: asyncio.Transport | None = None
        self._sink_is_full = False
        self._ended = False

    def join(self, source: asyncio.Transport, sink: asyncio.Transport) -> None:
        self._source, self._sink = source, sink
        self._move()

    def set(self, setting: Setting) -> None:
        """What is held goes by the new rule: at once where there is no delay any more."""
        self._setting = setting
        now_s = self._loop.time()
        latest_s = now_s + setting.delay_s
        self._held = deque((min(due_s, latest_s), data) for due_s, data in self._held)
        self._move()

    def put(self, data: bytes) -> None:
        self._held.append((self._loop.time() + self._setting.delay_s, data))
        self._held_bytes += len(data)
        self._move()

    def sink_full(self, full: bool) -> None:
        self._sink_is_full = full
        self._move()

    def end(self) -> None:
        """Nothing more comes in; what is held is still delivered."""
        self._ended = True
        self._move()

    def drop(self) -> None:
        """Both ends are gone."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _move(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._source is None or self._sink is None:
            return
        flows = self._setting.state is not LinkState.CLOGGED and not self._sink_is_full
        now_s = self._loop.time()
        while flows and self._held and self._held[0][0] <= now_s:
            _, data = self._held.popleft()
            self._held_bytes -= len(data)
            self._sink.write(data)
            flows = not self._sink_is_full  # told from within write
        if flows and self._held:
            self._timer = self._loop.call_at(self._held[0][0], self._move)
        if self._ended and not self._held:
            self._sink.close()
        self._throttle()

    def _throttle(self) -> None:
        """Read on only while what came before moves on."""
        source = self._source
        if source is None or source.is_closing():
            return
        full = self._sink_is_full or self._held_bytes > MAX_HELD_BYTES
        if full or self._setting.state is LinkState.CLOGGED:
            source.pause_reading()
        else:
            source.resume_reading()


class End(asyncio.Protocol):
    """One of the two sockets of a connection."""

    def __init__(self, inward: Pipe, outward: Pipe, made: Callable[["End"], None]) -> None:
        self._inward = inward  # what this socket sends us
        self._outward = outward
        self._made = made
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(
            asyncio.Transport, transport
        )  # uvloop's transports are not asyncio's subclasses
        self.transport.pause_reading()  # until the other end is there
        self._made(self)

    def data_received(self, data: bytes) -> None:
        self._inward.put(data)

    def pause_writing(self) -> None:
        self._outward.sink_full(True)

    def resume_writing(self) -> None:
        self._outward.sink_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._inward.end()
        self.lost.set()


class Connection:
    """A frontend's socket and the one that we have to the backend for it."""

    def __init__(self, setting: Setting) -> None:
        self.pipes = (Pipe(), Pipe())  # to the backend, and from it
        self.set(setting)
        self._ends: list[End] = []

    def set(self, setting: Setting) -> None:
        for pipe in self.pipes:
            pipe.set(setting)

    def end(self, made: Callable[[End], None], *, of_frontend: bool) -> End:
        up, down = self.pipes
        end = End(up, down, made) if of_frontend else End(down, up, made)
        self._ends.append(end)
        return end

    async def run(self, runtime: Runtime, backend: str) -> None:
        """Until either side is gone."""
        near = self._ends[0]
        try:
            far = cast(End, await runtime.connect(backend, lambda: self.end(_ignore, of_frontend=False)))
            if near.transport is None or far.transport is None:
                return
            up, down = self.pipes
            up.join(near.transport, far.transport)
            down.join(far.transport, near.transport)
            await near.lost.wait()
            await far.lost.wait()
        except (OSError, TimeoutError):
            pass  # no backend: the frontend is told by the end of its connection
        finally:
            self.abort()

    def abort(self) -> None:
        for pipe in self.pipes:
            pipe.drop()
        for end in self._ends:
            if end.transport is not None:
                end.transport.abort()


def _ignore(end: End) -> None:
    """The backend's side needs nobody's notice."""


class Link:
    """All connections of one frontend."""

    def __init__(self, runtime: Runtime, address: str, backend: str) -> None:
        self._runtime = runtime
        self._address = address
        self._backend = backend
        self._setting = Setting()
        self._listener: Listener | None = None
        self._connections: set[Connection] = set()

    async def set(self, setting: Setting) -> None:
        self._setting = setting
        if setting.state is LinkState.CUT:
            self.close()
            return
        if self._listener is None:
            self._listener = await self._runtime.listen(self._address, self._accept)
        for connection in self._connections:
            connection.set(setting)

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.abort()

    def _accept(self) -> End:
        connection = Connection(self._setting)
        return connection.end(lambda _: self._begin(connection), of_frontend=True)

    def _begin(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._runtime.spawn(self._carry(connection), "link")

    async def _carry(self, connection: Connection) -> None:
        try:
            await connection.run(self._runtime, self._backend)
        finally:
            self._connections.discard(connection)


class Proxy:
    """The links of all frontends, by name."""

    def __init__(self, runtime: Runtime, backend: str, addresses: Mapping[str, str]) -> None:
        self._links = {name: Link(runtime, address, backend) for name, address in addresses.items()}

    async def start(self) -> None:
        for link in self._links.values():
            await link.set(Setting())

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    async def call(self, target: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Raises CallFailed."""
        if target not in self._links or name != "set":
            raise CallFailed(f'"{target}": {name}: no such link or command')
        try:
            await self._links[target].set(msgspec.convert(arguments, Setting))
        except (msgspec.ValidationError, Refused, OSError) as error:
            raise CallFailed(f"{target}: {error}") from error


async def _serve(backend: str, addresses: Mapping[str, str]) -> None:
    proxy = Proxy(SystemRuntime(_fail), backend, addresses)
    await proxy.start()
    await Server(proxy.call, _fail).run({"ready": "links", "pid": os.getpid()})
    proxy.close()


def _fail(task: str, error: BaseException) -> None:
    """A fault of ours: a link that is half there would measure nothing."""
    sys.stderr.write(f"{task}: {error!r}\n")
    os._exit(1)


if __name__ == "__main__":
    run(_serve(sys.argv[1], dict(argument.split("=", 1) for argument in sys.argv[2:])))
