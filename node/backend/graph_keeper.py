"""The backend's graph: the one that counts. Decides about announcements, and feeds every frontend's copy."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Protocol, assert_never

from node.backend.journal import Journal
from node.backend.links import FrontendLink
from node.backend.store import Store, put
from node.gossip import raw as gossip
from node.gossip.graph import (
    ChannelAdded,
    ChannelRemoved,
    ChannelSpent,
    ChannelUpdated,
    Delta,
    Graph,
    NodeAnnounced,
)
from node.gossip.validation import FundingOutput, Verdict, admit
from node.link import frames
from node.link.graph_records import encode_delta
from node.link.messages import GraphCurrent, Verdicts
from node.runtime import logs
from node.runtime.runtime import Runtime

MAX_LOOKUPS = 1_000  # announcements whose funding output is being looked up
MAX_LOGGED = 50_000  # changes kept for frontends that lag or come back; beyond, a snapshot is cheaper
CHUNK_BYTES = 256 * 1024  # of a snapshot, between two looks at everything else

log = logs.get("graph")


class Outputs(Protocol):
    """The chain, as far as announcements need it."""

    async def funding_output(self, channel: gossip.ChannelFields) -> FundingOutput | None: ...
    def watch_public(self, channel: gossip.ChannelFields) -> None: ...


class Follower(Protocol):
    """Wants to know of every change (route finding)."""

    def apply(self, delta: Delta) -> None: ...


class _Feed:
    """How far one frontend's copy is."""

    __slots__ = ("position", "snapshot", "snapshot_sequence")

    def __init__(self, position: int, snapshot: Iterator[Delta] | None, snapshot_sequence: int) -> None:
        self.position = position
        self.snapshot = snapshot
        self.snapshot_sequence = snapshot_sequence


class GraphKeeper:
    """Mutable; owns the graph."""

    def __init__(self, runtime: Runtime, journal: Journal, graph: Graph, outputs: Outputs) -> None:
        self._runtime = runtime
        self._journal = journal
        self.graph = graph
        self._outputs = outputs
        self._followers: list[Follower] = []
        self._log: deque[bytes] = deque(maxlen=MAX_LOGGED)  # records, the last has the graph's sequence
        self._feeds: dict[FrontendLink, _Feed] = {}
        self._verdicts: dict[FrontendLink, list[tuple[int, int]]] = {}
        self._lookups = 0
        self.verdicts: dict[Verdict, int] = {}
        self._flushing = False

    @property
    def lookups(self) -> int:
        """Announcements whose funding output is being looked up."""
        return self._lookups

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)

    def load(self, store: Store) -> None:
        """Take up the stored graph; kinds are in an order in which everything finds what it belongs to."""
        for kind, number, raw in store.rows("SELECT kind, number, raw FROM gossip ORDER BY kind, key"):
            assert isinstance(number, int)
            assert isinstance(raw, bytes)
            if kind == _CHANNEL:
                self.graph.apply(ChannelAdded(raw, number))
                self._outputs.watch_public(gossip.channel_fields(raw))
            else:
                self.graph.apply(ChannelUpdated(raw) if kind == _UPDATE else NodeAnnounced(raw))

    # verdicts

    def offered(self, link: FrontendLink, number: int, raw: bytes) -> None:
        """A frontend has checked form and signatures; what is left needs the chain.

        The form is checked again, for a frontend may lie: MalformedMessage ends its link.
        """
        kind = gossip.check_size(raw)
        if kind != gossip.CHANNEL_ANNOUNCEMENT:
            verdict = admit(self.graph, raw, int(self._runtime.now()))
            if verdict is Verdict.ACCEPTED:
                is_update = kind == gossip.CHANNEL_UPDATE
                self.change(ChannelUpdated(raw) if is_update else NodeAnnounced(raw))
            self._answer(link, number, verdict)
        elif self._lookups >= MAX_LOOKUPS:
            self._answer(link, number, Verdict.BUSY)
        else:
            self._lookups += 1
            self._runtime.spawn(self._admit_channel(link, number, raw), "announcement")

    async def _admit_channel(self, link: FrontendLink, number: int, raw: bytes) -> None:
        try:
            verdict = await self.admit_channel(raw)
        finally:
            self._lookups -= 1
        self._answer(link, number, verdict)

    async def admit_channel(self, raw: bytes) -> Verdict:
        """Check a channel_announcement against the chain, and take it in."""
        fields = gossip.channel_fields(raw)
        funding = await self._outputs.funding_output(fields)
        verdict = admit(self.graph, raw, int(self._runtime.now()), funding)
        if verdict is Verdict.ACCEPTED:
            assert funding is not None
            self.change(ChannelAdded(raw, funding.amount_sat))
            self._outputs.watch_public(fields)
        return verdict

    def _answer(self, link: FrontendLink, number: int, verdict: Verdict) -> None:
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        self._verdicts.setdefault(link, []).append((number, int(verdict)))
        self._flush_soon()

    # changes

    def change(self, delta: Delta) -> bool:
        """Apply a change, store it, and have it sent to every frontend; False where it was nothing new."""
        if not self.graph.apply(delta):
            self.graph.sequence -= 1  # sequence numbers count what is sent
            return False
        self._log.append(encode_delta(delta))
        for follower in self._followers:
            follower.apply(delta)
        self._store(delta)
        self._flush_soon()
        return True

    def spent(self, short_channel_id: int, height: int | None) -> None:
        """The chain says that a public channel's output is spent (None: not any more)."""
        self.change(ChannelSpent(short_channel_id, height))

    def prune(self, height: int) -> None:
        """Remove what is stale or buried."""
        for short_channel_id in (*self.graph.stale(int(self._runtime.now())), *self.graph.buried(height)):
            self.change(ChannelRemoved(short_channel_id))

    def _store(self, delta: Delta) -> None:
        match delta:
            case ChannelAdded() | ChannelUpdated() | NodeAnnounced():
                self._journal.write(PUT, *row(delta))
            case ChannelRemoved(short_channel_id):
                low = short_channel_id.to_bytes(8, "big")
                self._journal.write(
                    "DELETE FROM gossip WHERE kind < 2 AND key BETWEEN ? AND ?", low, low + b"\1"
                )
            case ChannelSpent():
                pass  # the watch on the output says it again after a restart

    # feeds

    def wanted(self, link: FrontendLink, after: int) -> None:
        """A frontend asks for everything after a sequence number (-1: for everything; -2: to go on)."""
        if after == -2:
            self._pump(link)
            return
        sequence = self.graph.sequence
        if sequence - len(self._log) <= after <= sequence:
            self._feeds[link] = _Feed(after, None, 0)
            link.write(frames.control(GraphCurrent(after)))
        else:
            self._feeds[link] = _Feed(sequence, self.graph.snapshot(), sequence)
        self._pump(link)

    def link_down(self, link: FrontendLink) -> None:
        self._feeds.pop(link, None)
        self._verdicts.pop(link, None)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Changes first, so that a frontend knows a channel before it hears that it was accepted."""
        self._flushing = False
        for link in list(self._feeds):
            self._pump(link)
        verdicts, self._verdicts = self._verdicts, {}
        for link, pairs in verdicts.items():
            link.write(frames.control(Verdicts(tuple(pairs))))

    def _pump(self, link: FrontendLink) -> None:
        feed = self._feeds.get(link)
        if feed is None or not link.writable:
            return
        if feed.snapshot is not None:
            chunk = _chunk(feed.snapshot)
            if chunk:
                link.write(frames.graph(0, chunk))
                asyncio.get_running_loop().call_soon(self._pump, link)
                return
            feed.snapshot = None
            link.write(frames.control(GraphCurrent(feed.snapshot_sequence)))
        behind = self.graph.sequence - feed.position
        if behind > len(self._log):
            self.wanted(link, -1)
            return
        while behind > 0:
            batch, size = [], 0
            for index in range(len(self._log) - behind, len(self._log)):
                batch.append(self._log[index])
                size += len(self._log[index])
                if size >= CHUNK_BYTES:
                    break
            link.write(frames.graph(feed.position + 1, b"".join(batch)))
            feed.position += len(batch)
            behind -= len(batch)


_CHANNEL, _UPDATE, _NODE = 0, 1, 2
PUT = put("gossip")  # a `row`


def row(delta: ChannelAdded | ChannelUpdated | NodeAnnounced) -> tuple[int, bytes, int, bytes]:
    """How the store keeps an announcement: kind, key, number, message."""
    match delta:
        case ChannelAdded(raw, capacity_sat):
            key = gossip.channel_fields(raw).short_channel_id.to_bytes(8, "big")
            return _CHANNEL, key, capacity_sat, raw
        case ChannelUpdated(raw):
            key = gossip.update_channel(raw) + bytes((gossip.update_direction(raw),))
            return _UPDATE, key, 0, raw
        case NodeAnnounced(raw):
            return _NODE, gossip.node_id(raw), 0, raw
        case _:
            assert_never(delta)


def _chunk(deltas: Iterator[Delta]) -> bytes:
    records, size = [], 0
    for delta in deltas:
        records.append(encode_delta(delta))
        size += len(records[-1])
        if size >= CHUNK_BYTES:
            break
    return b"".join(records)
