"""The runtime that a process of the world is handed: virtual time, seeded chance, connections in memory, slow disks."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeVar

from lnsim.world.loop import VirtualLoop
from lnsim.world.network import Network, WorldListener
from lnsim.world.process import Process
from lnsim.world.trace import Trace
from node.runtime.runtime import ProtocolFactory
from node.runtime.socks import Proxy
from node.runtime.tls import Tls

T = TypeVar("T")

EPOCH_S = 1_700_000_000.0  # Unix time when the world begins
DISK = "store"  # the lane in which a node commits
LANES_S = {DISK: (0.000_3, 0.006), "handshake": (0.000_3, 0.001)}  # how long work takes, least and most
MAX_LAST_WRITES = 6  # of a process that is killed while it writes
OTHER_LANES_S = (0.000_1, 0.002)


class Moment(Enum):
    """At which a kill shows most of what was promised too early: something was decided, and nobody has heard of it."""

    BEFORE_COMMIT = 1
    AFTER_COMMIT = 2
    AMID_WRITES = 3


class WorldRuntime:
    """A `node.runtime.runtime.Runtime` for one life of one process."""

    def __init__(
        self, loop: VirtualLoop, network: Network, trace: Trace, process: Process, seed: str
    ) -> None:
        self.process = process
        self.disk_delay_s = 0.0
        self._loop = loop
        self._network = network
        self._trace = trace
        own = f"{seed}/{process.name}/{process.life}"
        self.random = random.Random(f"{own}/random")
        self._keys = random.Random(f"{own}/entropy")
        self._chance = random.Random(f"{own}/lanes")
        self._free_s: dict[str, float] = {}  # when each lane has done what it was given
        self._fate: Moment | None = None

    def now(self) -> float:
        return EPOCH_S + self._loop.time()

    def monotonic(self) -> float:
        return self._loop.time()

    def entropy(self, size: int) -> bytes:
        return self._keys.randbytes(size)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self.process.background(work, name)

    async def run_blocking(self, lane: str, work: Callable[[], T]) -> T:
        """Done at a moment of its own, heard of later: a kill in between leaves it done and unheard of."""
        least_s, most_s = LANES_S.get(lane, OTHER_LANES_S)
        took_s = self._chance.uniform(least_s, most_s) + (self.disk_delay_s if lane == DISK else 0.0)
        begin_s = max(self._loop.time(), self._free_s.get(lane, 0.0))
        end_s = self._free_s[lane] = begin_s + took_s
        done: asyncio.Future[T] = self._loop.create_future()
        moment_s = begin_s + took_s * self._chance.random()
        self._loop.call_at(moment_s, self._work, lane, work, done, end_s, context=self.process.context)
        return await done

    def _work(self, lane: str, work: Callable[[], T], done: "asyncio.Future[T]", end_s: float) -> None:
        if done.cancelled():
            return
        if lane == DISK and self._fate is Moment.BEFORE_COMMIT:
            self.process.kill()
            return
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
            self._loop.call_at(end_s, _fail, done, error, context=self.process.context)
            return
        if lane == DISK:
            self._trace.note(self.process.name, self.process.name, "disk")
            if self._fate is not None:
                self.process.kill()
                return
        self._loop.call_at(end_s, _succeed, done, result, context=self.process.context)

    def doom(self, moment: "Moment") -> None:
        """It is killed at the next such moment."""
        if moment is Moment.AMID_WRITES:
            self.process.fuse = self._chance.randrange(MAX_LAST_WRITES)
        else:
            self._fate = moment

    async def listen(
        self, address: str, factory: ProtocolFactory, *, share_port: bool = False, tls: Tls | None = None
    ) -> WorldListener:
        assert tls is None, "nobody listens in a simulated network"
        self._still_there()
        return self._network.listen(self.process, address, factory, share_port=share_port)

    async def connect(
        self,
        address: str,
        factory: ProtocolFactory,
        *,
        tls: Tls | None = None,
        proxy: Proxy | None = None,
    ) -> asyncio.Protocol:
        assert tls is None, "nobody listens in a simulated network"
        assert proxy is None, "there is none in a simulated network"
        self._still_there()
        return await self._network.connect(self.process, address, factory)

    def _still_there(self) -> None:
        if self.process.is_over:
            raise asyncio.CancelledError


def _succeed(done: "asyncio.Future[T]", result: T) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: "asyncio.Future[Any]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
