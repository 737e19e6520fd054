"""Dials: few at once, each with a deadline, the next attempt after a while that grows."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from lnsim.swarm.connection import Connection
from node.runtime.addresses import split_address
from node.runtime.runtime import ProtocolFactory, Runtime
from node.runtime.socks import Proxy

# Handshakes in flight from one process: no more than a backend queues, so that a storm is not about being refused.
MAX_DIALLING = 200
DIAL_TIMEOUT_S = 10.0  # until init messages were exchanged
ONION_TIMEOUT_S = 30.0  # the same, where circuits are built first, for many at once
PASSWORD = "x"  # noqa: S105 - a tor takes any: user and password name the circuit
FIRST_BACK_OFF_S = 0.05
MAX_BACK_OFF_S = 2.0
MAX_DOUBLINGS = 8  # further ones would not lengthen the pause


class Way(Struct, frozen=True):
    """To the node: straight to its address, or through a tor to its onion service."""

    address: str
    proxy: Proxy | None = None

    async def connect(self, runtime: Runtime, factory: ProtocolFactory) -> None:
        """Raises OSError or TimeoutError where nobody answers."""
        await runtime.connect(self.address, factory, proxy=self.proxy)


class Caller(Protocol):
    """Who wants a connection; what becomes of it is said to the connection's owner."""

    wanted: bool  # False: not any more
    failures: int  # attempts since it was last connected

    @property
    def circuit(self) -> str:
        """The name of its own circuit, where it comes through a tor."""
        ...

    def dial(self, settled: asyncio.Future[None]) -> Connection:
        """A connection for one attempt."""
        ...


class Dialler:
    """Mutable; one for a swarm."""

    def __init__(self, runtime: Runtime, addresses: Sequence[str], socks: str = "") -> None:
        """`socks`: the proxy that knows the way to the addresses. Raises Refused for what is no address."""
        for address in (*addresses, *([socks] if socks else [])):
            split_address(address)
        self._runtime = runtime
        self._addresses = list(addresses)
        self._socks = socks
        self._queue: deque[Caller] = deque()
        self._tasks: dict[asyncio.Task[None], None] = {}  # in order: a set's would not be the same again
        self._stopped = False

    def dial(self, caller: Caller) -> None:
        """As soon as there is room."""
        self._queue.append(caller)
        self._pump()

    def dial_again(self, caller: Caller) -> None:
        """After a pause that grows with its failures."""
        pause_s = back_off_s(caller.failures, self._runtime.random)
        asyncio.get_running_loop().call_later(pause_s, self.dial, caller)

    def way(self, circuit: str) -> Way:
        """To one of the node's addresses, drawn at random."""
        address = self._runtime.random.choice(self._addresses)
        return Way(address, Proxy(self._socks, circuit, PASSWORD) if self._socks else None)

    def stop(self) -> None:
        """Begin nothing any more, and give up what is under way."""
        self._stopped = True
        self._queue.clear()
        for task in self._tasks:
            task.cancel()

    def _pump(self) -> None:
        while self._queue and len(self._tasks) < MAX_DIALLING and not self._stopped:
            task = self._runtime.spawn(self._dial(self._queue.popleft()), "dial")
            self._tasks[task] = None
            task.add_done_callback(self._dialled)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._pump()

    async def _dial(self, caller: Caller) -> None:
        if not caller.wanted:
            return
        settled = asyncio.get_running_loop().create_future()
        await attempt(self._runtime, self.way(caller.circuit), caller.dial(settled), settled)


async def attempt(runtime: Runtime, way: Way, connection: Connection, settled: asyncio.Future[None]) -> None:
    """Dial; returns once the connection is ready or lost, in bounded time."""
    try:
        async with asyncio.timeout(ONION_TIMEOUT_S if way.proxy else DIAL_TIMEOUT_S):
            await way.connect(runtime, lambda: connection)
            await settled
    except (OSError, TimeoutError):
        pass  # the abort tells the connection's owner
    finally:
        if not connection.ready:
            connection.abort()


def back_off_s(failures: int, chance: random.Random) -> float:
    """50 ms, doubled with each failure up to 2 s, and half of it more or less."""
    full_s = min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * (1 << min(failures, MAX_DOUBLINGS)))
    return full_s * (0.5 + chance.random())
