"""Connections that we make: those that a user asks for, and again and again to peers with whom we have channels."""

from collections.abc import Callable

from node.backend.channels import Channels
from node.backend.journal import Journal
from node.backend.placing import is_reached
from node.backend.session import Session
from node.backend.store import Store, put
from node.backend.switchboard import Switchboard
from node.channel.model import ENDED
from node.errors import Refused
from node.gossip.graph import Graph
from node.gossip.raw import node_addresses
from node.runtime import logs
from node.runtime.addresses import Kind, join_address, kind_of
from node.runtime.handshakes import Handshakes
from node.runtime.runtime import Runtime
from node.wire.addresses import decode_addresses

PUT = put("peers")
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
PAUSE_FACTOR = 2.0
# Through a proxy an onion service comes first: it needs no exit, and Tor's exits are refused by many.
PREFERENCE: tuple[Kind | None, ...] = (None, "onion", "ipv4", "ipv6", "dns")
MAX_AT_ONCE = 20  # dials of ours under way: a restart with a thousand peers is no storm

log = logs.get("dial")


class _Plan:
    """When to try a peer again."""

    __slots__ = ("next_s", "pause_s", "running", "tries")

    def __init__(self, next_s: float) -> None:
        self.next_s = next_s
        self.pause_s = FIRST_PAUSE_S
        self.running = False
        self.tries = 0  # each at the next of its addresses


class Dialler:
    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        switchboard: Switchboard,
        channels: Channels,
        handshakes: Handshakes,
        graph: Graph,
        enabled: Callable[[], bool],
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._switchboard = switchboard
        self._channels = channels
        self._handshakes = handshakes
        self._graph = graph
        self._enabled = enabled
        self._addresses: dict[bytes, str] = {}
        self._plans: dict[bytes, _Plan] = {}

    def load(self, store: Store) -> None:
        for node_id, address in store.rows("SELECT node_id, address FROM peers"):
            assert isinstance(node_id, bytes)
            self._addresses[node_id] = str(address)

    async def connect(self, node_id: bytes, address: str) -> Session:
        """A session with this peer; its address is remembered. Raises Refused."""
        session = await self._switchboard.connect(node_id, address, self._handshakes.initiator(node_id))
        if self._addresses.get(node_id) != address:
            self._addresses[node_id] = address
            self._journal.write(PUT, node_id, address)
        return session

    def sweep(self) -> None:
        """Twice a second or so: dial whoever is missing and due."""
        if not self._enabled() or not self._switchboard.links:
            return
        now_s = self._runtime.monotonic()
        running = sum(plan.running for plan in self._plans.values())
        for node_id, records in self._channels.by_peer.items():
            if self._switchboard.session_of(node_id) is not None:
                self._plans.pop(node_id, None)
                continue
            if self._switchboard.is_held(node_id):
                continue
            if all(record.channel.phase in ENDED for record in records.values()):
                continue
            plan = self._plans.get(node_id)
            if plan is None:  # it has just gone: a moment, so that two do not dial each other at once
                pause_s = FIRST_PAUSE_S * self._runtime.random.random()
                plan = self._plans[node_id] = _Plan(now_s + pause_s)
            if plan.next_s > now_s or plan.running or running >= MAX_AT_ONCE:
                continue
            if addresses := self.addresses(node_id):
                running += 1
                plan.running = True
                address = addresses[plan.tries % len(addresses)]
                plan.tries += 1
                self._runtime.spawn(self._try(node_id, address, plan), "dial")

    async def reach(self, node_id: bytes) -> Session:
        """A session with this peer, at any address that is known of it. Raises Refused."""
        why = Refused("no address of this peer is known; say NODE_ID@HOST:PORT")
        for address in self.addresses(node_id):
            try:
                return await self.connect(node_id, address)
            except Refused as error:
                why = Refused(f"{address}: {error}")
        raise why

    def addresses(self, node_id: bytes) -> list[str]:
        """Where to try, in this order: where it was found before, then what it announces and we reach."""
        known = self._addresses.get(node_id)
        node = self._graph.nodes.get(node_id)
        found = [] if known is None else [known]
        if node is not None and node.announcement is not None:
            announced = decode_addresses(node_addresses(node.announcement))
            found += sorted((join_address(*each) for each in announced), key=self._preference)
        links, dialling = self._switchboard.links.values(), self._switchboard.dialling
        # where none is reached, dialling one says why
        return [each for each in dict.fromkeys(found) if is_reached(links, each, dialling)] or found[:1]

    def _preference(self, address: str) -> tuple[bool, int]:
        kind = kind_of(address)
        return self._switchboard.dialling.way(kind) != "direct", PREFERENCE.index(kind)

    async def _try(self, node_id: bytes, address: str, plan: _Plan) -> None:
        growth = 1.0  # a peer that answers and goes again waits no longer each time
        try:
            await self.connect(node_id, address)
        except Refused as error:
            growth = PAUSE_FACTOR
            log.debug("not_connected", peer=node_id.hex(), address=address, error=str(error))
        finally:
            plan.running = False
        jitter = 0.5 + self._runtime.random.random()
        plan.next_s = self._runtime.monotonic() + plan.pause_s * jitter
        plan.pause_s = min(MAX_PAUSE_S, plan.pause_s * growth)
