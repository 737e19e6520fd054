"""Connections that we make: those that a user asks for, and again and again to peers with whom we have channels."""

import ipaddress
from collections.abc import Callable

from node.backend.channels import Channels
from node.backend.journal import Journal
from node.backend.session import Session
from node.backend.store import Store, put
from node.backend.switchboard import Switchboard
from node.channel.model import ENDED
from node.errors import Refused
from node.gossip.graph import Graph
from node.gossip.raw import node_addresses
from node.runtime import logs
from node.runtime.addresses import join_address
from node.runtime.handshakes import Handshakes
from node.runtime.runtime import Runtime

PUT = put("peers")
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
PAUSE_FACTOR = 2.0
MAX_AT_ONCE = 20  # dials of ours under way: a restart with a thousand peers is no storm

log = logs.get("dial")


class _Plan:
    """When to try a peer again."""

    __slots__ = ("next_s", "pause_s", "running")

    def __init__(self, next_s: float) -> None:
        self.next_s = next_s
        self.pause_s = FIRST_PAUSE_S
        self.running = False


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
            address = self._address(node_id)
            if address is None or all(record.channel.phase in ENDED for record in records.values()):
                continue
            plan = self._plans.get(node_id)
            if plan is None:  # it has just gone: a moment, so that two do not dial each other at once
                pause_s = FIRST_PAUSE_S * self._runtime.random.random()
                plan = self._plans[node_id] = _Plan(now_s + pause_s)
            if plan.next_s <= now_s and not plan.running and running < MAX_AT_ONCE:
                running += 1
                plan.running = True
                self._runtime.spawn(self._try(node_id, address, plan), "dial")

    def _address(self, node_id: bytes) -> str | None:
        known = self._addresses.get(node_id)
        if known is not None:
            return known
        node = self._graph.nodes.get(node_id)
        return None if node is None or node.announcement is None else _announced_address(node.announcement)

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


def _announced_address(announcement: bytes) -> str | None:
    """The first IPv4 or IPv6 address that a node announces."""
    addresses = node_addresses(announcement)
    sizes = {1: 4, 2: 16}
    if not addresses or addresses[0] not in sizes:
        return None
    size = sizes[addresses[0]]
    port = int.from_bytes(addresses[1 + size : 3 + size], "big")
    return join_address(str(ipaddress.ip_address(addresses[1 : 1 + size])), port)
