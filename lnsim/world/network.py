"""The network of a world: who listens where, connections between its processes, and what becomes of the links.

Latencies are drawn once per direction of a connection, from the seed and the names of both ends, so that one more
connection elsewhere changes nothing here.
"""

import asyncio
import random
from contextvars import Context
from functools import partial
from itertools import count

from lnsim.world.loop import VirtualLoop
from lnsim.world.trace import Trace
from lnsim.world.transport import End, Link, Owner, Signal, Way
from node.errors import Refused
from node.runtime.addresses import join_address, split_address
from node.runtime.runtime import ProtocolFactory

UNIX_LATENCY_S = (0.000_02, 0.000_3)
TCP_LATENCY_S = (0.000_5, 0.02)
FIRST_PORT = 20_000
FIRST_CLIENT_PORT = 40_000
MAX_PORT = 65_535
HOST = "127.0.0.1"
ANY_HOST = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - names in a network without sockets

Place = tuple[str, int]  # of a listener: a path and 0, or a host and its port


class WorldListener:
    """A bound address; closed by its owner, or with it."""

    def __init__(self, network: "Network", owner: Owner, place: Place, factory: ProtocolFactory) -> None:
        self._network = network
        self.owner = owner
        self.place = place
        self.factory = factory

    @property
    def address(self) -> str:
        name, port = self.place
        return join_address(name, port) if port else f"unix:{name}"

    def close(self) -> None:
        self._network.unbind(self)


class Network:
    def __init__(self, loop: VirtualLoop, trace: Trace, seed: str) -> None:
        self._loop = loop
        self._trace = trace
        self._seed = seed
        self._random = random.Random(f"{seed}/network")
        self._listeners: dict[Place, list[tuple[WorldListener, bool]]] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._connections: dict[tuple[str, str], int] = {}
        self._ports = count(FIRST_PORT)
        self._client_ports = count()

    # listening

    def listen(
        self, owner: Owner, address: str, factory: ProtocolFactory, *, share_port: bool = False
    ) -> WorldListener:
        """Raises Refused where the address is taken; a Unix socket is taken over, as its file would be."""
        kind, name, port = split_address(address)
        if kind == "unix":
            self._listeners.pop((name, 0), None)
        elif port == 0:
            port = next(self._ports)
        place = (name, port)
        there = self._listeners.setdefault(place, [])
        if there and not (share_port and all(shared for _, shared in there)):
            raise Refused(f"listen: {address}: is in use; choose another address")
        listener = WorldListener(self, owner, place, factory)
        there.append((listener, share_port))
        return listener

    def unbind(self, listener: WorldListener) -> None:
        left = [pair for pair in self._listeners.get(listener.place, []) if pair[0] is not listener]
        if left:
            self._listeners[listener.place] = left
        else:
            self._listeners.pop(listener.place, None)

    def unbind_all(self, owner: Owner) -> None:
        bound = [pair[0] for there in self._listeners.values() for pair in there if pair[0].owner is owner]
        for listener in bound:
            self.unbind(listener)

    # connecting

    async def connect(self, owner: Owner, address: str, factory: ProtocolFactory) -> asyncio.Protocol:
        """Raises OSError where nobody answers, Refused for what is no address."""
        kind, name, port = split_address(address)
        waiting: asyncio.Future[End] = self._loop.create_future()
        low_s, high_s = UNIX_LATENCY_S if kind == "unix" else TCP_LATENCY_S
        place = ("127.0.0.1" if name == "localhost" else name, port)
        self._loop.call_later(
            self._random.uniform(low_s, high_s),
            partial(self._arrive, owner, place, factory, waiting, (low_s, high_s)),
            context=Context(),
        )
        try:
            return (await waiting).protocol
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                waiting.result().close()
            raise

    def _arrive(
        self,
        owner: Owner,
        place: Place,
        factory: ProtocolFactory,
        waiting: asyncio.Future[End],
        latency_s: tuple[float, float],
    ) -> None:
        """The wish to connect is there: whoever listens takes it."""
        if waiting.done():
            return
        there = self._listeners.get(place) or self._listeners_of_any_host(place)
        if not there:
            self._loop.call_later(latency_s[0], _refuse, waiting, place, context=owner.context)
            return
        listener = there[self._random.randrange(len(there))][0]
        link = self.link(owner.name, listener.owner.name)
        if link.cut:
            self._loop.call_later(latency_s[0], _refuse, waiting, place, context=owner.context)
            return
        near, far = self._ends(owner, listener, link, latency_s)
        near.expect(factory, waiting)
        self._loop.call_soon(far.begin, listener.factory, context=listener.owner.context)
        far.consent()

    def _listeners_of_any_host(self, place: Place) -> list[tuple[WorldListener, bool]]:
        for (name, port), there in self._listeners.items():
            if port == place[1] != 0 and name in ANY_HOST:
                return there
        return []

    def _ends(
        self, owner: Owner, listener: WorldListener, link: Link, latency_s: tuple[float, float]
    ) -> tuple[End, End]:
        names = (owner.name, listener.owner.name)
        number = self._connections[names] = self._connections.get(names, 0) + 1
        chance = random.Random(f"{self._seed}/{names[0]}/{names[1]}/{number}")
        there = Way(self._loop, link, chance.uniform(*latency_s), chance)
        back = Way(self._loop, link, chance.uniform(*latency_s), chance)
        client, server = self._names(listener.place)
        near = End(self._loop, self._trace, owner, there, link, peername=server, sockname=client)
        far = End(self._loop, self._trace, listener.owner, back, link, peername=client, sockname=server)
        near.other, far.other = far, near
        there.target, back.target = far, near
        return near, far

    def _names(self, place: Place) -> tuple[object, object]:
        if place[1] == 0:
            return "", place[0]
        port = FIRST_CLIENT_PORT + next(self._client_ports) % (MAX_PORT - FIRST_CLIENT_PORT)
        return (HOST, port), (HOST if place[0] in ANY_HOST else place[0], place[1])

    # links

    def link(self, one: str, other: str) -> Link:
        return self._links.setdefault((min(one, other), max(one, other)), Link())

    def cut(self, one: str, other: str) -> None:
        """Close what is open between the two, and refuse new connections until `mend`."""
        link = self.link(one, other)
        link.cut = True
        for end in list(link.ends):
            end.cut()

    def clog(self, one: str, other: str) -> None:
        """Nothing arrives any more; it does once the link is mended, in order."""
        self.link(one, other).clogged = True

    def delay(self, one: str, other: str, delay_s: float) -> None:
        """Everything takes so much longer."""
        self.link(one, other).delay_s = delay_s

    def mend(self, one: str, other: str) -> None:
        link = self.link(one, other)
        link.cut, link.clogged, link.delay_s = False, False, 0.0
        link.let_go()

    def lose(self, owner: Owner) -> None:
        """All that a process had open ends with it, in order or with a reset, as chance has it."""
        self.unbind_all(owner)
        for end in list(owner.ends):
            end.die(Signal.RESET if self._random.random() < 0.5 else Signal.EOF)


def _refuse(waiting: asyncio.Future[End], place: Place) -> None:
    if not waiting.done():
        waiting.set_exception(ConnectionRefusedError(f"nobody listens at {place[0]}:{place[1]}"))
