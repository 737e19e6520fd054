"""From processes that are up to a network that can pay: connections, channels, graph, crowds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from lnsim.api_client import CallFailed, Node
from lnsim.cluster import DEPTH, all_of, wait_until
from lnsim.scenario.model import ONION, ChannelsSpec
from lnsim.stage import Group, PeerNode, Stage, chain_of, onion_of

SETTLE_TIMEOUT_S = 60.0
MAX_OPENING = 50  # channels on their way at once: below what a node lets be pending
CONFIRM_TIMEOUT_S = 5.0  # after blocks, until more of them are tried
TRIES = 5  # for one open: a fresh connection may be lost to another one of the same peer
FOREIGN_GOSSIP_S = 5.0
FOREIGN_GOSSIP_TRIES = 48  # four minutes: a node as it comes tells its peers every other minute only
RETRY_S = 0.2
POLL_S = 0.1

Say = Callable[[str, str], None]


class Builder:
    """Builds what a scenario's topology asks for; `say` hears what a person may want to read."""

    def __init__(self, stage: Stage, say: Say) -> None:
        self._stage = stage
        self._say = say
        groups = stage.groups.values()
        self._whole = [group for group in groups if group.spec.channels is not None]
        self._light = [group for group in groups if group.spec.channels is None]
        self._nodes = [node for group in self._whole for node in group.nodes]
        by_onion = [group for group in self._whole if group.spec.through == ONION]
        self._by_onion = {node.name for group in by_onion for node in group.nodes}

    async def build(self) -> None:
        """Raises CallFailed that says what did not come about."""
        if self._nodes:
            await all_of(*(self._connect(node) for node in self._nodes))
            self._say("info", f"{len(self._nodes)} peers connected")
            await self._open()
            await self._usable()
            await self._learn()
        if self._light:
            await all_of(*(self._crowd(group) for group in self._light))

    async def _connect(self, node: PeerNode) -> None:
        stage = self._stage
        address = onion_of(stage).address if node.name in self._by_onion else stage.hub_address
        await _again(node, "connect", node_id=stage.hub_id, address=address)

    async def _open(self) -> None:
        """All channels, a bounded number at once, confirmed as they come."""
        todo = [
            (node, group.spec.channels)
            for turn in range(max(_each(group) for group in self._whole))
            for group in self._whole
            for node in group.nodes
            if turn < _each(group) and group.spec.channels is not None
        ]
        height = 0
        for start in range(0, len(todo), MAX_OPENING):
            part = todo[start : start + MAX_OPENING]
            await all_of(*(self._open_one(node, spec) for node, spec in part))
            height = await self._confirm()
        self._say("info", f"{len(todo)} channels funded, block {height}")

    async def _open_one(self, node: PeerNode, spec: ChannelsSpec) -> None:
        await _again(
            node,
            "open",
            node_id=self._stage.hub_id,
            funding_sat=spec.capacity_sat,
            push_msat=round(spec.capacity_sat * 1_000 * spec.balance),
            announce=spec.announce,
            channel_type=spec.type,
        )

    async def _confirm(self) -> int:
        """Blocks until all are usable: an open is answered while its transaction is on its way to the chain."""
        for turn in range(TRIES):
            height = await chain_of(self._stage).mine(DEPTH)
            try:
                await self._usable(SETTLE_TIMEOUT_S if turn == TRIES - 1 else CONFIRM_TIMEOUT_S)
            except CallFailed:
                if turn == TRIES - 1:
                    raise
            else:
                break
        return height

    async def _usable(self, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        async def usable() -> bool:
            answers = await asyncio.gather(*(node.call("channels") for node in self._everyone()))
            return all(channel["usable"] for channels in answers for channel in channels)

        await wait_until(usable, timeout_s, "all channels usable", POLL_S)

    async def _learn(self) -> None:
        """Gossip reaches everyone: each can route to each."""
        wanted = sum(
            len(group.nodes) * _each(group)
            for group in self._whole
            if group.spec.channels and group.spec.channels.announce
        )
        if not wanted or self._stage.scenario.topology.graph is not None:
            return  # of a large graph nobody is asked for all of it

        async def complete() -> bool:
            graphs = await asyncio.gather(*(node.call("graph") for node in self._everyone()))
            return all(self._is_complete(graph["channels"], wanted) for graph in graphs)

        if self._stage.hub is None:
            await self._learn_from_stranger(complete)
        else:
            await wait_until(complete, SETTLE_TIMEOUT_S, "all channels in everyone's graph", POLL_S)
        self._say("good", "gossip complete")

    async def _learn_from_stranger(self, complete: Callable[[], Awaitable[bool]]) -> None:
        """With blocks and a fresh connection in between: then nodes say again what was lost on somebody before."""
        for turn in range(FOREIGN_GOSSIP_TRIES):
            try:
                await wait_until(complete, FOREIGN_GOSSIP_S, "all channels in everyone's graph", POLL_S)
            except CallFailed:
                if turn == FOREIGN_GOSSIP_TRIES - 1:
                    raise
                await chain_of(self._stage).mine(1)
                if turn == 0:
                    await all_of(*(self._reconnect(node) for node in self._nodes))
                    await self._usable()
            else:
                return

    async def _reconnect(self, node: PeerNode) -> None:
        with contextlib.suppress(CallFailed):  # the other end may have been faster
            await node.call("disconnect", node_id=self._stage.hub_id)
        await self._connect(node)

    def _is_complete(self, channels: list[dict[str, Any]], wanted: int) -> bool:
        """All that the run opened is known with both sides' terms; what a foreign node has besides is its own affair."""
        ends = {self._stage.hub_id, *(node.node_id for node in self._nodes)}
        ours = [channel for channel in channels if {channel["node_1"], channel["node_2"]} <= ends]
        return len(ours) >= wanted and all(all(channel["updates"]) for channel in ours)

    def _everyone(self) -> list[Node]:
        hub = [] if self._stage.hub is None else [self._stage.hub]
        return [*hub, *self._nodes]

    async def _crowd(self, group: Group) -> None:
        assert group.swarm is not None
        result: dict[str, Any] = await group.swarm.call("connect", per_s=group.spec.connect_per_s)
        self._say("info", f"{result['connected']} light peers of {group.name} connected")
        if result.get("failed"):
            self._say("bad", f"{result['failed']} light peers of {group.name} could not connect")


def _each(group: Group) -> int:
    return group.spec.channels.each if group.spec.channels else 0


async def _again(node: PeerNode, name: str, **arguments: Any) -> None:
    """A few tries: peers that all come at once meet limits that are meant for strangers."""
    for turn in range(TRIES):
        try:
            await node.call(name, **arguments)
        except CallFailed as error:
            if turn == TRIES - 1:
                raise CallFailed(f"{node.name}: {error}") from error
            await asyncio.sleep(RETRY_S * 2**turn)
        else:
            return
