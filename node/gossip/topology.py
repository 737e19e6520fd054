"""The graph as arrays for route finding: every channel as two edges, sorted so that a search can start at the payee.

Edges are grouped by the node they lead to and then by where they come from, so parallel channels lie side by side.
A changed channel_update is written in place; new channels wait for the next rebuild, which takes some 0.1 s and
is done at most every few seconds.
"""

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from node.gossip import raw as gossip
from node.gossip.graph import (
    UNKNOWN_CAPACITY_SAT,
    ChannelAdded,
    ChannelRemoved,
    ChannelSpent,
    ChannelUpdated,
    Delta,
    Graph,
    NodeAnnounced,
)
from node.wire.features import Feature, Features

REBUILD_INTERVAL_S = 10.0
CHANNELS_PER_S = 5_000  # so a small graph follows every change at once, the public one every ten seconds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_ID = (1 << 63) - 1  # what the arrays hold; no real height comes near, while an alias may be anything

_KNOWN = Features.of(optional=tuple(Feature))
# channel_flags, then the policy, as they lie in a channel_update from byte 111 on
_POLICY = np.dtype(
    [
        ("flags", "u1"),
        ("delta", ">u2"),
        ("minimum", ">u8"),
        ("base", ">u4"),
        ("ppm", ">u4"),
        ("maximum", ">u8"),
    ]
)
_POLICY_START, _POLICY_END = 111, 138
_NO_POLICY = bytes((gossip.DISABLE,)) + bytes(26)


class Topology:
    """Columns by edge; amounts are floats, exact up to 2^53 msat, which is more than all bitcoin of one channel."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._rebuilt_s = float("-inf")
        self._is_stale = True
        self.version = 0  # of the edges' positions
        self._build()

    def apply(self, delta: Delta) -> None:
        """Follow a change that the graph has just taken over."""
        match delta:
            case ChannelUpdated(update):
                self.update(update)
            case ChannelRemoved(short_channel_id) | ChannelSpent(short_channel_id):
                # BOLT 7: a spent channel may be spliced and still forward, but it is no good bet
                self.enabled[list(self.edges_of(short_channel_id))] = False
                self._is_stale = True
            case ChannelAdded() | NodeAnnounced():
                self._is_stale = True

    def update(self, raw: bytes) -> None:
        """Write the terms of a channel_update into its edge, also of one that only a failure message showed us."""
        edges = self.edges_of(int.from_bytes(gossip.update_channel(raw), "big"))
        if not edges or len(raw) < _POLICY_END:
            return
        self._write(np.array([edges[gossip.update_direction(raw)]]), raw[_POLICY_START:_POLICY_END])

    def refresh(self, now_s: float) -> None:
        """Rebuild where channels came or went; the larger the graph, the longer they wait for each other."""
        interval_s = min(REBUILD_INTERVAL_S, len(self._graph.channels) / CHANNELS_PER_S)
        if self._is_stale and now_s - self._rebuilt_s >= interval_s:
            self._build()
            self._rebuilt_s = now_s

    def edges_of(self, short_channel_id: int) -> tuple[int, int] | tuple[()]:
        """The positions of a channel's two edges, direction 0 first; an alias has none."""
        if short_channel_id > MAX_ID:
            return ()
        at = int(np.searchsorted(self._ids, short_channel_id))
        if at == len(self._ids) or self._ids[at] != short_channel_id:
            return ()
        return int(self._position[2 * at]), int(self._position[2 * at + 1])

    def positions(self, short_channel_ids: Ints, directions: Ints) -> Ints:
        """The positions of many edges, -1 where the channel is not here."""
        if not len(self._ids):
            return np.full(len(short_channel_ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self._ids, short_channel_ids), len(self._ids) - 1)
        found = self._position[2 * at + directions]
        return np.where(self._ids[at] == short_channel_ids, found, -1)

    def pair(self, source: int, target: int) -> range:
        """The positions of the edges from one node to another."""
        start, end = self.indptr[target], self.indptr[target + 1]
        group = int(start + np.searchsorted(self.indices[start:end], source))
        if group == end or self.indices[group] != source:
            return range(0)
        last = self.group_start[group + 1] if group + 1 < len(self.group_start) else len(self.source)
        return range(int(self.group_start[group]), int(last))

    def _build(self) -> None:
        graph = self._graph
        self.version += 1
        self._is_stale = False
        channels = [graph.channels[i] for i in graph.after(-1, len(graph.channels)) if i not in graph.spent]
        self.node_ids = list(graph.nodes)
        self.index = {node_id: index for index, node_id in enumerate(self.node_ids)}
        index, count = self.index, len(channels)
        one = np.fromiter((index[c.node_id_1] for c in channels), np.int64, count)
        two = np.fromiter((index[c.node_id_2] for c in channels), np.int64, count)
        self._ids = np.fromiter((c.short_channel_id for c in channels), np.int64, count)
        capacity = np.fromiter((c.capacity_sat for c in channels), np.float64, count) * 1000
        # direction 0 of channel i is row 2i, direction 1 row 2i + 1, until the rows are sorted
        source, target = _interleave(one, two), _interleave(two, one)
        order = np.lexsort((source, target))
        self._position = np.empty(2 * count, np.int64)
        self._position[order] = np.arange(2 * count)
        self.source, self.target = source[order], target[order]
        self.short_channel_id = np.repeat(self._ids, 2)[order]
        self.capacity_msat = np.repeat(capacity, 2)[order]
        self._is_assumed = self.capacity_msat >= UNKNOWN_CAPACITY_SAT * 1000
        for name in ("delta", "minimum_msat", "maximum_msat", "base_msat", "ppm"):
            setattr(self, name, np.zeros(2 * count))
        self.enabled = np.zeros(2 * count, np.bool_)
        self._barred = self._find_barred(order, [gossip.channel_features(c.announcement) for c in channels])
        rows = chain.from_iterable((c.update_1, c.update_2) for c in channels)
        policies = [_NO_POLICY if raw is None else raw[_POLICY_START:_POLICY_END] for raw in rows]
        self._write(self._position, b"".join(policies))
        self._group()

    delta: Floats
    minimum_msat: Floats
    maximum_msat: Floats
    base_msat: Floats
    ppm: Floats

    def _find_barred(self, order: Ints, channel_features: list[bytes]) -> Bools:
        """BOLT 7: no payment through channels or nodes with compulsory features that we do not know."""
        known: dict[bytes, bool] = {b"": False}

        def is_unknown(features: bytes) -> bool:
            if features not in known:
                known[features] = bool(Features.from_bytes(features).unknown_even(_KNOWN))
            return known[features]

        announcements = (node.announcement for node in self._graph.nodes.values())
        nodes = np.fromiter(
            (raw is not None and is_unknown(gossip.node_features(raw)) for raw in announcements),
            np.bool_,
            len(self.node_ids),
        )
        channels = np.fromiter(map(is_unknown, channel_features), np.bool_, len(channel_features))
        return nodes[self.source] | np.repeat(channels, 2)[order]

    def _write(self, edges: Ints, policies: bytes) -> None:
        rows = np.frombuffer(policies, _POLICY)
        self.delta[edges] = rows["delta"]
        self.minimum_msat[edges] = rows["minimum"]
        self.maximum_msat[edges] = rows["maximum"]
        # where nobody looked the capacity up, what a channel offers to forward is the best guess
        self.capacity_msat[edges] = np.where(
            self._is_assumed[edges], rows["maximum"], self.capacity_msat[edges]
        )
        self.base_msat[edges] = rows["base"]
        self.ppm[edges] = rows["ppm"]
        self.enabled[edges] = (rows["flags"] & gossip.DISABLE == 0) & ~self._barred[edges]

    def _group(self) -> None:
        """Rows of a sparse matrix: for each target its sources, parallel edges taken together."""
        source, target = self.source, self.target
        first = np.ones(len(source), np.bool_)
        first[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
        self.group_start = np.flatnonzero(first)
        self.indices = source[self.group_start].astype(np.int32)
        rows = np.bincount(target[self.group_start], minlength=len(self.node_ids))
        self.indptr = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)


def _interleave(even: Ints, odd: Ints) -> Ints:
    return np.column_stack((even, odd)).ravel()
