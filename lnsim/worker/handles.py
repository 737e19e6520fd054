"""What a stage commands simulated peers with, wherever their workers are: in this process, in others, on other machines."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from lnsim.scenario.model import PeersSpec

SHARED_RATES = frozenset({"per_s"})  # arguments of a swarm's commands that its parts divide among themselves
SHARED_COUNTS = frozenset({"count", "max_open"})


class Commanded(Protocol):
    """A worker, or our end of one that is elsewhere. Raises CallFailed."""

    async def call(self, target: str, name: str, arguments: Mapping[str, Any]) -> Any: ...


class HostedNode:
    """A simulated peer with channels: a whole node in a worker (`lnsim.stage.PeerNode`)."""

    def __init__(self, worker: Commanded, name: str, node_id: str, address: str) -> None:
        self.name = name
        self.node_id = node_id
        self.address = address
        self._worker = worker

    async def call(self, name: str, **arguments: Any) -> Any:
        """Raises CallFailed."""
        return await self._worker.call(self.name, name, arguments)


class Part(Struct, frozen=True):
    """So many light peers of a group, in one worker."""

    worker: Commanded
    count: int


class SwarmHandle:
    """The light peers of a group, spread over workers (`lnsim.stage.Swarm`)."""

    def __init__(self, group: str, parts: Sequence[Part]) -> None:
        self._group = group
        self._parts = tuple(parts)

    async def call(self, name: str, **arguments: Any) -> Any:
        """Every part does its share; numbers of the answers are summed. Raises CallFailed."""
        shares = split(arguments, [part.count for part in self._parts])
        calls = [
            part.worker.call(self._group, name, own) for part, own in zip(self._parts, shares, strict=True)
        ]
        return merge(await asyncio.gather(*calls))


class HostedGroup(Struct, frozen=True):
    """Peers of one entry of `topology.peers` (`lnsim.stage.Group`)."""

    name: str
    spec: PeersSpec
    nodes: tuple[HostedNode, ...] = ()
    swarm: SwarmHandle | None = None


def split(arguments: Mapping[str, Any], counts: Sequence[int]) -> list[dict[str, Any]]:
    """The arguments for each part: rates and numbers of peers by its size, all others as they are."""
    total = sum(counts)
    shares: list[dict[str, Any]] = []
    for end, count in _ends(counts):
        own = dict(arguments)
        for name, value in arguments.items():
            if value is None:
                continue
            if name in SHARED_RATES:
                own[name] = value * count / total
            elif name in SHARED_COUNTS:
                own[name] = value * end // total - value * (end - count) // total
        shares.append(own)
    return shares


def _ends(counts: Sequence[int]) -> list[tuple[int, int]]:
    """(peers up to the end of this part, peers in it)"""
    end, found = 0, []
    for count in counts:
        end += count
        found.append((end, count))
    return found


def merge(answers: Sequence[Any]) -> Any:
    """One answer of several: numbers are summed, dictionaries merged, lists joined; of anything else the first."""
    first = answers[0]
    if isinstance(first, bool) or len(answers) == 1:
        return first
    if isinstance(first, int | float):
        return sum(answers)
    if isinstance(first, list):
        return [item for answer in answers for item in answer]
    if isinstance(first, dict):
        keys = dict.fromkeys(key for answer in answers for key in answer)
        return {key: merge([answer[key] for answer in answers if key in answer]) for key in keys}
    return first
