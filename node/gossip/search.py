"""The search proper: costs of all edges as arrays, Dijkstra in C from the payee, the best path read back."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
from msgspec import Struct
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from node.gossip.topology import Floats, Ints, Topology

MAX_HOPS = 20  # BOLT 4: an onion of 1,300 bytes has room for some twenty
RISK_PER_BLOCK = 15e-9  # what a msat locked up for a block costs: 0.08 percent a year
MAX_ATTEMPTS = (
    100.0  # expected failures counted for an edge: what surely fails is tried only as a last resort
)


class Profile(Struct, frozen=True):
    """How much each concern weighs against the fee, for one amount."""

    attempt_msat: float  # what a failed attempt costs us
    block_msat: float  # what a block costs by which the money may be locked up longer
    hop_msat: float


def profiles(amount_msat: int, max_fee_msat: int, max_expiry_delta: int) -> tuple[Profile, ...]:
    """In the order to be tried: well balanced; cheap, where the fee was too high; and within all limits at once.

    The last one scales blocks and hops so that a path which uses up one limit costs as much as one that uses up the
    fee: what it finds has the best chance to keep them all.
    """
    risk_msat = amount_msat * RISK_PER_BLOCK
    return (
        Profile(5_000 + amount_msat * 0.0005, risk_msat, 500),
        Profile(10 + amount_msat * 0.000001, risk_msat / 100, 1),
        Profile(10, max_fee_msat / max(max_expiry_delta, 1), max_fee_msat / MAX_HOPS + 1),
    )


class Step(Struct, frozen=True):
    """One channel of a path; `edge` is its position in the topology, negative where it is not part of that."""

    node_id: bytes
    short_channel_id: int
    base_msat: int = 0
    ppm: int = 0
    expiry_delta: int = 0
    edge: int = -1

    def fee_msat(self, amount_msat: int) -> int:
        """BOLT 7, HTLC fees."""
        return self.base_msat + amount_msat * self.ppm // 1_000_000


class Fault(Struct, frozen=True):
    """Why a proposed route will not do; `edge` where another try without it may."""

    reason: str
    edge: int | None = None


Tail = tuple[bytes, tuple[Step, ...]]


class Search:
    """All searches for one payee, at what is believed of balances when it begins."""

    def __init__(
        self, topology: Topology, bounds: tuple[Floats, Floats], destination: bytes, tails: Sequence[Tail]
    ) -> None:
        self._topology = topology
        self._lower_msat, self._upper_msat = bounds
        self._capacity_msat = topology.capacity_msat
        self._usable = topology.enabled
        self._destination = destination
        self._tails = tails

    def exclude(self, source: bytes, nodes: Collection[bytes], channels: Collection[tuple[int, int]]) -> None:
        """Leave out our own public channels, which the caller knows better, and what failed before."""
        topology, usable = self._topology, self._usable.copy()
        for node_id in (source, *nodes):
            index = topology.index.get(node_id)
            if index is not None:
                usable &= topology.source != index
                if node_id == source:
                    usable &= topology.target != index
        for short_channel_id, direction in channels:
            if edges := topology.edges_of(short_channel_id):
                usable[edges[direction]] = False
        self._usable = usable

    def reserve(self, steps: Sequence[Step], amounts_msat: Sequence[int]) -> None:
        """A part will use this path: the next parts find so much less in it."""
        self._capacity_msat = self._capacity_msat.copy()
        for step, amount_msat in zip(steps, amounts_msat, strict=True):
            if step.edge >= 0:
                self._capacity_msat[step.edge] -= amount_msat
                self._upper_msat[step.edge] -= amount_msat
                self._lower_msat[step.edge] = max(0.0, self._lower_msat[step.edge] - amount_msat)

    def fits(self, step: Step, amount_msat: int) -> bool:
        """Whether an edge takes exactly this amount; a route hint says nothing about that."""
        topology, edge = self._topology, step.edge
        if edge < 0:
            return True
        most_msat = min(topology.maximum_msat[edge], self._capacity_msat[edge])
        return bool(topology.minimum_msat[edge] <= amount_msat <= most_msat)

    def best(
        self, amount_msat: int, profile: Profile, starts: Sequence[Step], banned: Collection[int]
    ) -> list[Step] | None:
        """The cheapest path that begins with one of `starts`, costs being taken at `amount_msat`."""
        costs = self._costs(amount_msat, profile, banned)
        ends = self._ends(amount_msat, profile)
        distances, following = self._distances(costs, ends)
        nearest, first, first_tail = float("inf"), None, None
        for start in starts:
            index = self._topology.index.get(start.node_id)
            distance = float("inf") if index is None else float(distances[index])
            tail = ends.get(start.node_id)
            if tail is not None and tail[0] < distance:
                distance = tail[0]
            else:
                tail = None
            if distance < nearest:
                nearest, first, first_tail = distance, start, tail
        if first is None:
            return None
        if first_tail is not None:
            return [first, *first_tail[1]]
        return self._path(first, costs, following, ends)

    def _costs(self, amount_msat: int, profile: Profile, banned: Collection[int]) -> Floats:
        """For every edge what it is expected to cost us to send this amount over it, in msat; inf: impossible."""
        topology, amount = self._topology, float(amount_msat)
        costs = topology.ppm * (amount / 1e6)
        costs += topology.base_msat
        costs += topology.delta * profile.block_msat
        # a balance as likely anywhere between the bounds: 1 / probability - 1 failures are expected
        failures = (amount - self._lower_msat) / np.maximum(self._upper_msat - amount, 1.0)
        np.clip(failures, 0.0, MAX_ATTEMPTS, out=failures)
        failures *= profile.attempt_msat
        costs += failures
        costs += profile.hop_msat
        usable = self._usable & (topology.minimum_msat <= amount)
        usable &= np.minimum(topology.maximum_msat, self._capacity_msat) >= amount
        costs[~usable] = np.inf
        costs[[edge for edge in banned if edge >= 0]] = np.inf
        return costs

    def _ends(self, amount_msat: int, profile: Profile) -> dict[bytes, tuple[float, tuple[Step, ...]]]:
        """Where the search starts: the payee, and the beginnings of route hints with the cost of what follows."""
        ends: dict[bytes, tuple[float, tuple[Step, ...]]] = {self._destination: (0.0, ())}
        for node_id, steps in self._tails:
            amount, cost = amount_msat, 0.0
            for step in reversed(steps):
                cost += profile.hop_msat + profile.block_msat * step.expiry_delta
                amount += step.fee_msat(amount)
            cost += amount - amount_msat
            if node_id not in ends or cost < ends[node_id][0]:
                ends[node_id] = (cost, steps)
        return ends

    def _distances(
        self, costs: Floats, ends: Mapping[bytes, tuple[float, tuple[Step, ...]]]
    ) -> tuple[Floats, Ints]:
        """For each node its distance from the payee and the node that follows, by one more node behind all ends."""
        topology = self._topology
        count = len(topology.node_ids)
        cheapest = np.minimum.reduceat(costs, topology.group_start) if len(costs) else costs
        last = sorted(
            (topology.index[node], cost) for node, (cost, _) in ends.items() if node in topology.index
        )
        matrix = csr_array(
            (
                np.append(cheapest, [cost for _, cost in last]),
                np.append(topology.indices, np.array([index for index, _ in last], np.int32)),
                np.append(topology.indptr, np.int32(len(cheapest) + len(last))),
            ),
            shape=(count + 1, count + 1),
        )
        found = dijkstra(matrix, directed=True, indices=count, return_predecessors=True)  # type: ignore[call-overload]  # the stubs do not know that csr_array is sparse
        return cast(tuple[Floats, Ints], found)

    def _path(
        self,
        first: Step,
        costs: Floats,
        following: Ints,
        ends: Mapping[bytes, tuple[float, tuple[Step, ...]]],
    ) -> list[Step]:
        topology, steps = self._topology, [first]
        node = topology.index[first.node_id]
        behind = len(topology.node_ids)
        while (after := int(following[node])) != behind:
            edge = min(topology.pair(node, after), key=costs.__getitem__)
            steps.append(self._step(edge))
            node = after
        steps.extend(ends[topology.node_ids[node]][1])
        return steps

    def _step(self, edge: int) -> Step:
        topology = self._topology
        return Step(
            topology.node_ids[topology.target[edge]],
            int(topology.short_channel_id[edge]),
            int(topology.base_msat[edge]),
            int(topology.ppm[edge]),
            int(topology.delta[edge]),
            edge,
        )
