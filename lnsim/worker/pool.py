"""Who lives where: the peers of a topology, dealt out to a few workers, started there, and had as groups."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from lnsim.scenario.model import PeersSpec
from lnsim.worker.handles import Commanded, HostedGroup, HostedNode, Part, SwarmHandle

LIGHT_PEERS_EACH = 1_500  # of a worker: what one process pings and reads beside a node under load
NODES_EACH = 12

NodeConfig = Callable[[str], Mapping[str, Any]]  # of `lnnode standalone`, by the node's name
SwarmConfig = Callable[[PeersSpec], Mapping[str, Any]]  # but for count, part and parts

Peers = Mapping[str, PeersSpec]


class Crew(Struct, frozen=True):
    """Who lives in one worker: nodes, as (group, name), and so many light peers of each group."""

    nodes: tuple[tuple[str, str], ...] = ()
    light: dict[str, int] = {}


def node_names(group: str, spec: PeersSpec) -> list[str]:
    return [f"{group}{number}" for number in range(1, spec.count + 1)]


def crews(peers: Peers, most: int) -> list[Crew]:
    """At most so many, but nodes and light peers never share one: payments are not to wait for pings."""
    whole = [
        (group, name) for group, spec in peers.items() if spec.channels for name in node_names(group, spec)
    ]
    light = {group: spec.count for group, spec in peers.items() if spec.channels is None}
    for_nodes, for_light = _numbers(len(whole), sum(light.values()), most)
    return [
        *(Crew(nodes=tuple(whole[turn::for_nodes])) for turn in range(for_nodes)),
        *(Crew(light=_share(light, turn, for_light)) for turn in range(for_light)),
    ]


def _numbers(nodes: int, light: int, most: int) -> tuple[int, int]:
    """Workers for nodes, and for light peers: what they need, the larger number cut first where that is too many."""
    for_nodes, for_light = -(-nodes // NODES_EACH), -(-light // LIGHT_PEERS_EACH)
    while for_nodes + for_light > most and max(for_nodes, for_light) > 1:
        if for_nodes > for_light:
            for_nodes -= 1
        else:
            for_light -= 1
    return for_nodes, for_light


def _share(light: Mapping[str, int], turn: int, of: int) -> dict[str, int]:
    shares = {group: (turn + 1) * count // of - turn * count // of for group, count in light.items()}
    return {group: count for group, count in shares.items() if count}


async def populate(
    workers: Sequence[Commanded],
    crew: Sequence[Crew],
    peers: Peers,
    seed: int,
    node_config: NodeConfig,
    swarm_config: SwarmConfig,
) -> dict[str, HostedGroup]:
    """Start everybody, each crew in the worker beside it. Raises CallFailed."""
    homes = list(zip(workers, crew, strict=True))
    started = await asyncio.gather(
        *(_node(worker, name, node_config(name)) for worker, each in homes for _, name in each.nodes)
    )
    nodes = {node.name: node for node in started}
    groups = {}
    for group, spec in peers.items():
        if spec.channels is not None:
            groups[group] = HostedGroup(group, spec, tuple(nodes[name] for name in node_names(group, spec)))
        else:
            parts = [Part(worker, each.light[group]) for worker, each in homes if group in each.light]
            await _swarm(group, parts, seed, swarm_config(spec))
            groups[group] = HostedGroup(group, spec, swarm=SwarmHandle(group, parts))
    return groups


async def _node(worker: Commanded, name: str, config: Mapping[str, Any]) -> HostedNode:
    begun = await worker.call("", "start_node", {"name": name, "config": config})
    return HostedNode(worker, name, begun["node_id"], begun["listen"])


async def _swarm(group: str, parts: Sequence[Part], seed: int, config: Mapping[str, Any]) -> None:
    for number, part in enumerate(parts):
        own = {**config, "count": part.count, "part": number, "parts": len(parts)}
        start = {"group": group, "seed": f"{seed}/{group}/{number}", "config": own}
        await part.worker.call("", "start_swarm", start)
