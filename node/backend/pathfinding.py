"""Routes for our own payments: our channels as they stand now, the graph, and what past attempts taught."""

from collections.abc import Callable

from node.backend.channels import Channels
from node.channel.limits import free_slots, spendable_msat
from node.errors import MalformedMessage
from node.gossip import raw as gossip
from node.gossip import routes
from node.gossip.graph import Delta, Graph
from node.gossip.liquidity import Liquidity
from node.gossip.topology import Topology
from node.gossip.validation import is_signed_by
from node.payment import send
from node.payment.blame import Observation
from node.payment.route import Route


class Pathfinding:
    """Implements `sending.Pathfinder` and `graph_keeper.Follower`."""

    def __init__(self, graph: Graph, channels: Channels, node_id: bytes, now: Callable[[], float]) -> None:
        self._graph = graph
        self._topology = Topology(graph)
        self._liquidity = Liquidity()
        self._channels = channels
        self._node_id = node_id
        self._now = now

    def apply(self, delta: Delta) -> None:
        self._topology.apply(delta)

    def free_slots(self) -> list[int]:
        """How many HTLCs more each usable channel of ours takes."""
        return [free_slots(r.channel) for r in self._channels.by_id.values() if r.channel.is_usable]

    def find(self, request: send.FindRoutes) -> tuple[Route, ...] | str:
        local = self._local_channels()
        if not local:
            return "no usable channel"
        found = routes.find_routes(
            self._topology,
            self._liquidity,
            routes.Request(
                source=self._node_id,
                destination=request.destination,
                amount_msat=request.amount_msat,
                max_fee_msat=request.max_fee_msat,
                final_expiry_delta=request.final_expiry_delta,
                channels=local,
                max_parts=request.max_parts,
                route_hints=request.route_hints,
                excluded_channels=frozenset(
                    (c.short_channel_id, c.direction) for c in request.excluded_channels
                ),
                excluded_nodes=frozenset(request.excluded_nodes),
            ),
            self._now(),
        )
        if not found:
            most_msat = sum(channel.spendable_msat for channel in local)
            if request.amount_msat > most_msat:
                return f"our channels can send {most_msat} msat now, reserves kept back"
            return "no route"
        return found

    def _local_channels(self) -> tuple[routes.LocalChannel, ...]:
        policy = self._channels.policy
        return tuple(
            routes.LocalChannel(
                record.node_id,
                record.channel.alias,
                spendable_msat(record.channel, policy),
                record.channel.remote.htlc_minimum_msat,
            )
            for record in self._channels.by_id.values()
            if record.channel.is_usable
        )

    def learn(self, observations: tuple[Observation, ...]) -> None:
        now_s = self._now()
        for seen in observations:
            channel = seen.channel
            self._liquidity.observe(
                channel.short_channel_id, channel.direction, seen.amount_msat, now_s, succeeded=seen.succeeded
            )

    def channel_update(self, raw: bytes) -> None:
        """From a failure: believed for our own routes if the channel's node signed it."""
        try:
            if gossip.check_size(raw) != gossip.CHANNEL_UPDATE:
                return
        except MalformedMessage:
            return
        channel = self._graph.channels.get(int.from_bytes(gossip.update_channel(raw), "big"))
        if channel is not None and is_signed_by(raw, channel.node_id(gossip.update_direction(raw))):
            self._topology.update(raw)
