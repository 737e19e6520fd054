"""Connections that misbehave, each in one way, until the node closes them or a bound is reached."""

import asyncio
from typing import Any

from lnsim.swarm.connection import Connection, Traffic
from lnsim.swarm.crowd import SECRET_SIZE, Place, Recorder
from lnsim.swarm.dialler import Dialler, Way, attempt
from lnsim.swarm.pace import pace
from lnsim.swarm.rude_ways import WAYS, RudePeer
from node.errors import Refused
from node.runtime.runtime import Runtime

MAX_GARBAGE_BYTES = 1_000
BEFORE_INIT = ("garbage", "half_handshake")
ALL_WAYS = (*BEFORE_INIT, *WAYS)


class RawConnection(asyncio.Protocol):
    """Says a few bytes, and nothing after them; hears nothing."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._socket: Any = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._socket = transport
        self._socket.write(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def abort(self) -> None:
        if self._socket is not None:
            self._socket.abort()


class RudePeers:
    """Mutable; those of one swarm."""

    def __init__(
        self, runtime: Runtime, recorder: Recorder, place: Place, dialler: Dialler, traffic: Traffic
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._place = place
        self._dialler = dialler
        self._traffic = traffic
        self._open: dict[asyncio.Task[None], None] = {}  # in order, as the dialler's
        self._begun = 0

    async def run(
        self, per_s: float, duration_s: float, ways: tuple[str, ...], max_open: int, bound_s: float
    ) -> None:
        """Raises Refused for a way that there is not."""
        for way in ways:
            if way not in ALL_WAYS:
                raise Refused(f"{way!r} is no way to be rude; there are {', '.join(ALL_WAYS)}")
        try:
            async for due in pace(per_s, duration_s):
                for _ in range(due):
                    self._begin(self._runtime.random.choice(ways), max_open, bound_s)
        finally:
            self.stop()

    def stop(self) -> None:
        for task in self._open:
            task.cancel()

    def _begin(self, way: str, max_open: int, bound_s: float) -> None:
        if len(self._open) >= max_open:
            self._recorder.count("rude.skipped")
            return
        self._begun += 1
        self._recorder.count(f"rude.{way}")
        task = self._runtime.spawn(self._misbehave(way, bound_s), f"rude {way}")
        self._open[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.pop(task, None)

    async def _misbehave(self, way: str, bound_s: float) -> None:
        began_s = self._runtime.monotonic()
        try:
            async with asyncio.timeout(bound_s):
                let_in = await (self._say(way) if way in BEFORE_INIT else self._with_session(way))
        except TimeoutError:
            self._recorder.count("rude.endured")
        else:
            self._recorder.count("rude.closed" if let_in else "rude.refused")
            self._recorder.observe(f"rude.{way}", self._runtime.monotonic() - began_s)

    async def _say(self, way: str) -> bool:
        """Bytes instead of a handshake, or of its end; returns once the node has hung up."""
        chance = self._runtime.random
        if way == "garbage":
            data = chance.randbytes(chance.randrange(1, MAX_GARBAGE_BYTES))
        else:
            secret = self._runtime.entropy(SECRET_SIZE)
            data = self._place.handshake(self._runtime, secret).act_one()
        connection = RawConnection(data)
        try:
            await self._way().connect(self._runtime, lambda: connection)
            await connection.ended.wait()
        except OSError:
            return False
        finally:
            connection.abort()
        return True

    async def _with_session(self, way: str) -> bool:
        """Misbehave past the init messages; returns once the node has hung up: whether it had let us in."""
        peer = RudePeer(self._recorder)
        settled = asyncio.get_running_loop().create_future()
        handshake = self._place.handshake(self._runtime, self._runtime.entropy(SECRET_SIZE))
        connection = Connection(peer, self._traffic, handshake, self._place.init, settled)
        try:
            await attempt(self._runtime, self._way(), connection, settled)
            if peer.was_ready:
                await WAYS[way](connection, peer, self._place, self._runtime)
        finally:
            connection.abort()
        return peer.was_ready

    def _way(self) -> Way:
        """On a circuit of its own each time, where it comes through a tor."""
        return self._dialler.way(f"rude{self._begun}")
