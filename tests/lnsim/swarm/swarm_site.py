"""A swarm before real frontends on loopback sockets, in one process; and a node that does as the test says."""

import asyncio
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from lnsim.bench.stand_in import NODE_SECRET, StandIn
from lnsim.graph_generator import REGTEST, TIMESTAMP
from lnsim.swarm.swarm import Swarm, SwarmConfig
from node.crypto.keys import public_key
from node.frontend.frontend import Frontend
from node.peer.connection import NoiseConnection
from node.peer.handshake import Responder
from node.runtime.config import FrontendConfig
from node.runtime.runtime import SystemRuntime
from node.wire import bolt1
from node.wire.codec import encode, message_type

PATIENCE_S = 10.0  # only a failing test waits for so long
INIT = encode(bolt1.Init(b"", b"", networks=REGTEST))


class GraphTime(SystemRuntime):
    """The real world, at the time at which the generated graphs were new; chance and keys from one seed."""

    def __init__(self, failures: list[BaseException]) -> None:
        super().__init__(lambda _, error: failures.append(error))
        self.random = random.Random(1)
        self._offset_s = TIMESTAMP - self.monotonic()

    def now(self) -> float:
        return self.monotonic() + self._offset_s

    def entropy(self, size: int) -> bytes:
        return self.random.randbytes(size)


class Figures:
    """A recorder whose figures a test can wait for."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.observed: dict[str, list[float]] = defaultdict(list)
        self._changed = asyncio.Event()

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] += by
        self._changed.set()

    def observe(self, name: str, value: float) -> None:
        self.observed[name].append(value)
        self._changed.set()

    async def reach(self, name: str, count: int) -> None:
        """Wait until something was counted or observed so often."""
        async with asyncio.timeout(PATIENCE_S):
            while max(self.counts[name], len(self.observed[name])) < count:
                self._changed.clear()
                await self._changed.wait()


class Office(StandIn):
    """A backend of real parts that writes down who came; `left` of them went."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.came: list[bytes] = []
        self.left = asyncio.Semaphore(0)

    def ready(self, session, init):
        self.came.append(session.node_id)

    def ended(self, session, cause):
        self.left.release()


class Site:
    def __init__(self, directory: Path) -> None:
        self.failures: list[BaseException] = []
        self.runtime = GraphTime(self.failures)
        self.figures = Figures()
        self.office: Office | None = None
        self.frontends: list[Frontend] = []
        self.swarms: list[Swarm] = []
        self.nodes: list[ScriptedNode] = []
        self._directory = directory

    async def open(self, deltas=(), limits=None) -> Frontend:
        """The backend and a frontend."""
        self.office = Office(self.runtime, self._directory, deltas)
        if limits is not None:
            self.office.limits = limits
        await self.office.start()
        return await self.frontend("127.0.0.1:0")

    async def frontend(self, listen: str) -> Frontend:
        config = FrontendConfig(listen=listen, backend=self.office.address, reconnect_s=0.01)
        frontend = Frontend(self.runtime, config, f"f{len(self.frontends) + 1}", "test")
        self.frontends.append(frontend)
        await frontend.start()
        await asyncio.wait_for(frontend.listening.wait(), PATIENCE_S)
        return frontend

    def swarm(self, address: str | None = None, count: int = 0, **config: Any) -> Swarm:
        """A swarm that aims at the frontend, or at whoever has that address."""
        values = {
            "hub_id": public_key(NODE_SECRET).hex(),
            "addresses": (address or self.frontends[0].address,),
            "count": count,
            "chain_hash": REGTEST.hex(),
        }
        swarm = Swarm(self.runtime, "idle", SwarmConfig(**values | config), self.figures)
        self.swarms.append(swarm)
        return swarm

    async def node(self, **conduct: Any) -> "ScriptedNode":
        node = ScriptedNode(**conduct)
        self.nodes.append(node)
        node.listener = await self.runtime.listen("127.0.0.1:0", node.connection)
        return node

    async def stop(self) -> None:
        for swarm in self.swarms:
            await swarm.stop()
        for node in self.nodes:
            node.listener.close()
        for frontend in self.frontends:
            await frontend.stop()
        if self.office is not None:
            self.office.stop()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class ScriptedNode:
    """Takes connections and writes down what they say; `sends` goes out after its init. Ignores pings, unless told."""

    def __init__(
        self, *, sends: tuple[bytes, ...] = (), pongs_with: int | None = None, hangs_up: bool = False
    ) -> None:
        self.sends = sends
        self.pongs_with = pongs_with
        self.hangs_up = hangs_up
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.connections = 0
        self.listener: Any = None

    @property
    def address(self) -> str:
        return self.listener.address

    def connection(self) -> asyncio.Protocol:
        return _ScriptedConnection(self)

    async def hears(self) -> bytes:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)


class _ScriptedConnection(asyncio.Protocol):
    def __init__(self, node: ScriptedNode) -> None:
        node.connections += 1
        self._node = node
        self._noise = NoiseConnection(Responder(NODE_SECRET, node.connections.to_bytes(32, "big")))
        self._greeted = False
        self._transport: Any = None

    def connection_made(self, transport):
        self._transport = transport
        if self._node.hangs_up:
            transport.abort()

    def data_received(self, data):
        for raw in self._noise.receive(data):
            self._node.heard.put_nowait(raw)
            if self._node.pongs_with is not None and message_type(raw) == bolt1.Ping.number:
                self._noise.send([encode(bolt1.Pong(bytes(self._node.pongs_with)))])
        if self._noise.established and not self._greeted:
            self._greeted = True
            self._noise.send((INIT, *self._node.sends))
        self._transport.write(self._noise.data_to_send())
