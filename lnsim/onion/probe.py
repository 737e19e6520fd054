"""Somebody who knocks at the onion service again and again: each time BOLT 8 and init, then they leave."""

import asyncio

from lnsim.metrics.recorder import Recorder
from lnsim.onion.figures import Outages
from lnsim.swarm.connection import Connection, Traffic
from lnsim.swarm.crowd import SECRET_SIZE, Place
from lnsim.swarm.dialler import Dialler, attempt
from node.runtime.runtime import Runtime

INTERVAL_S = 0.2
CIRCUITS = 4  # in turn
MAX_OPEN = 100  # a tor that is away lets each of them wait


class _Visitor:
    """Implements `connection.Owner`."""

    def __init__(self) -> None:
        self.was_ready = False

    def ready(self) -> None:
        self.was_ready = True

    def received(self, raw: bytes) -> None: ...
    def ponged(self, as_asked: bool) -> None: ...
    def lost(self) -> None: ...


class Probe:
    """`run` until cancelled. Counts onion.streams and onion.streams_failed, and tells `outages` of each."""

    def __init__(
        self, runtime: Runtime, place: Place, address: str, socks: str, recorder: Recorder, outages: Outages
    ) -> None:
        self._runtime = runtime
        self._place = place
        self._dialler = Dialler(runtime, [address], socks)
        self._recorder = recorder
        self._outages = outages
        self._traffic = Traffic()
        self._open: set[asyncio.Task[None]] = set()
        for name in ("onion.streams", "onion.streams_failed"):
            recorder.count(name, 0)  # told also where there is none

    async def run(self) -> None:
        try:
            turn = 0
            while True:
                if len(self._open) < MAX_OPEN:
                    turn += 1
                    self._begin(f"probe{turn % CIRCUITS}")
                await asyncio.sleep(INTERVAL_S)
        finally:
            for task in self._open:
                task.cancel()

    def _begin(self, circuit: str) -> None:
        task = self._runtime.spawn(self._knock(circuit), "onion probe")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _knock(self, circuit: str) -> None:
        began_s, visitor = self._runtime.monotonic(), _Visitor()
        settled = asyncio.get_running_loop().create_future()
        handshake = self._place.handshake(self._runtime, self._runtime.entropy(SECRET_SIZE))
        connection = Connection(visitor, self._traffic, handshake, self._place.init, settled)
        try:
            await attempt(self._runtime, self._dialler.way(circuit), connection, settled)
        finally:
            connection.abort()
        now_s = self._runtime.monotonic()
        self._recorder.count("onion.streams")
        self._recorder.count("onion.streams_failed", not visitor.was_ready)
        if visitor.was_ready:
            self._recorder.observe("onion.stream", now_s - began_s)
        self._outages.tried(began_s, now_s, came_through=visitor.was_ready)
