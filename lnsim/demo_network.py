"""The network of a demo: peers connected over all frontends, a channel each, everyone's graph complete."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from lnsim.api_client import Node
from lnsim.cluster import DEPTH, Cluster, all_of, wait_until
from lnsim.cluster_peer import Peer

CAPACITY_SAT = 1_000_000  # little enough for balances to be seen moving
MAX_MOVES = 60  # the kernel picks a frontend for each connection by chance; a few tries suffice
SETTLE_TIMEOUT_S = 30.0
HUB_COINS = 3  # channels that the hub opens at most: what its wallet has coins for


class Network:
    """Builds it, step by step; `say` hears what a person may want to read."""

    def __init__(self, cluster: Cluster, say: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._say = say
        self._dialled_by_hub = dialled_by_hub(cluster)
        self._dialled_in = [peer for peer in cluster.peers if peer not in self._dialled_by_hub]

    async def build(self) -> None:
        await self._connect()
        await self._spread()
        await self._open()
        await self._learn()

    async def _connect(self) -> None:
        """Some dial the port that the frontends share, the others are dialled by the hub."""
        hub = self._cluster.api
        await all_of(
            *map(self._dial_in, self._dialled_in),
            *(hub.call("connect", node_id=p.node_id, address=p.address) for p in self._dialled_by_hub),
        )
        self._say("info", f"{len(self._cluster.peers)} peers connected")

    async def _dial_in(self, peer: Peer) -> None:
        entrance = self._cluster.entrance or self._cluster
        await peer.call("connect", node_id=self._cluster.node_id, address=entrance.address)

    async def _spread(self) -> None:
        """Every frontend gets a session: whoever dialled the fullest one dials again."""
        for _ in range(MAX_MOVES):
            held = await sessions(self._cluster)
            counts = Counter(dict.fromkeys(self._cluster.frontends, 0))
            counts.update(held.values())
            (fullest, most), (_, fewest) = counts.most_common()[0], counts.most_common()[-1]
            movable = [p for p in self._dialled_in if held.get(p.node_id) == fullest]
            if fewest > 0 or most < 2 or not movable:
                return
            await movable[0].call("disconnect", node_id=self._cluster.node_id)
            await self._dial_in(movable[0])

    async def _open(self) -> None:
        """One channel with each peer, opened by whoever dialled, half of it on either side."""
        hub_id, hub = self._cluster.node_id, self._cluster.api
        terms: dict[str, Any] = {
            "funding_sat": CAPACITY_SAT,
            "push_msat": CAPACITY_SAT * 500,
            "announce": True,
        }
        await all_of(*(peer.call("open", node_id=hub_id, **terms) for peer in self._dialled_in))
        for peer in self._dialled_by_hub:  # one after the other: they share a wallet
            await hub.call("open", node_id=peer.node_id, **terms)
        height = await self._cluster.mine(DEPTH)
        self._say("info", f"{len(self._cluster.peers)} channels funded, block {height}")

        async def usable() -> bool:
            own = await hub.call("channels")
            theirs = await asyncio.gather(*(peer.call("channels") for peer in self._cluster.peers))
            return len(own) == len(self._cluster.peers) and all(
                channel["usable"] for channels in (own, *theirs) for channel in channels
            )

        await wait_until(usable, SETTLE_TIMEOUT_S, "all channels usable")

    async def _learn(self) -> None:
        """Gossip reaches everyone: each can route to each."""
        everyone: list[Node] = [self._cluster.api, *self._cluster.peers]
        wanted = len(self._cluster.peers)

        async def complete() -> bool:
            graphs = await asyncio.gather(*(node.call("graph") for node in everyone))
            return all(
                len(graph["channels"]) >= wanted and all(all(c["updates"]) for c in graph["channels"])
                for graph in graphs
            )

        await wait_until(complete, SETTLE_TIMEOUT_S, "both sides of all channels in everyone's graph")
        self._say("good", "gossip complete, paying")


def dialled_by_hub(cluster: Cluster) -> list[Peer]:
    """The others dial the hub."""
    return cluster.peers[1::2][:HUB_COINS]


async def sessions(cluster: Cluster) -> dict[str, str]:
    """Node id of every connected peer, and the frontend that holds its session."""
    peers = await cluster.api.call("peers")
    return {peer["node_id"]: peer["frontend"] for peer in peers if peer["connected"]}
