"""BOLT 7 at the frontend: its copy of the graph, questions to the backend, answers to peers, rebroadcast, syncs."""

from collections.abc import Iterable
from typing import Protocol, assert_never

from node.errors import MalformedMessage
from node.frontend.connection import Hold, PeerConnection
from node.gossip import raw as gossip
from node.gossip import sync
from node.gossip.dedupe import MAX_PROCESSING, Aggregation, Answer, Pending
from node.gossip.graph import (
    ChannelAdded,
    ChannelRemoved,
    ChannelSpent,
    ChannelUpdated,
    Delta,
    Graph,
    NodeAnnounced,
)
from node.gossip.queries import answer_ids, answer_range, matching
from node.gossip.rebroadcast import Rebroadcast
from node.gossip.validation import Verdict, check
from node.link.messages import Welcome
from node.peer.notice import warning
from node.runtime import logs
from node.runtime.histogram import Histogram
from node.runtime.runtime import Runtime
from node.wire import bolt7
from node.wire.codec import decode, encode
from node.wire.features import Feature

MAX_FLUSHES_PER_SWEEP = 200  # peers served in one go; the next sweep serves the others

log = logs.get("gossip")


class Backend(Protocol):
    """Where verdicts come from."""

    def offer(self, session: int, raw: bytes) -> int: ...
    def graph_wanted(self, after: int) -> None: ...


class FrontendGossip:
    """Mutable; one for the life of the frontend. Its graph is a copy that follows the backend's."""

    def __init__(self, runtime: Runtime, backend: Backend, connections: dict[int, PeerConnection]) -> None:
        self._runtime = runtime
        self._backend = backend
        self._connections = connections
        self._node_id = b""
        self._queries_per_s = 5.0
        self.graph = Graph(bytes(32))
        self._epoch = 0  # the term in which the copy was made: sequence numbers of another mean other changes
        self._next_graph: Graph | None = None  # a snapshot on its way in
        self.current = False
        self._rebroadcast = Rebroadcast()
        self._aggregation = Aggregation()
        self._pending = Pending()
        self._offers: dict[int, tuple[bytes, float]] = {}  # what waits for a verdict, and since when
        self.verdict_s = Histogram()
        self._syncs: dict[int, sync.Sync] = {}
        self.verdicts: dict[Verdict, int] = {}

    # the backend's side

    def configure(self, welcome: Welcome) -> None:
        """A new backend: a copy of another's graph is worth nothing."""
        self._node_id = welcome.node_id
        self._queries_per_s = welcome.limits.queries_per_s
        self._rebroadcast.interval_s = welcome.limits.flush_interval_s
        if self.graph.chain_hash != welcome.chain_hash:
            self.graph = Graph(welcome.chain_hash)
        same = self._epoch == welcome.epoch and self.graph.channels
        self._epoch = welcome.epoch
        self._want(self.graph.sequence if same else -1)
        self._offer_again()

    def _offer_again(self) -> None:
        """What the backend before did not decide, this one does: no peer that sent it waits in vain."""
        offers, self._offers = self._offers, {}
        for raw, since_s in offers.values():
            self._offers[self._backend.offer(0, raw)] = (raw, since_s)

    def _want(self, after: int) -> None:
        """Ask for all changes after this one; from -1 on it is the whole graph, which may be an empty one."""
        self.current = False
        self._next_graph = Graph(self.graph.chain_hash) if after < 0 else None
        self._backend.graph_wanted(after)

    def records(self, first_sequence: int, deltas: Iterable[Delta]) -> None:
        """Changes of the graph; 0 as first sequence: part of a snapshot."""
        if first_sequence == 0:
            if self._next_graph is None:
                self._next_graph = Graph(self.graph.chain_hash)
            for delta in deltas:
                _check_size(delta)
                self._next_graph.apply(delta)
            return
        if not self.current:
            return
        if first_sequence != self.graph.sequence + 1:
            log.warning("graph_gap", have=self.graph.sequence, got=first_sequence)
            self._want(self.graph.sequence)
            return
        for delta in deltas:
            _check_size(delta)
            self._change(delta)

    def snapshot_complete(self, sequence: int) -> None:
        """Everything up to `sequence` has been sent."""
        if self._next_graph is not None:
            self.graph, self._next_graph = self._next_graph, None
            self.graph.sequence = sequence
        if self.graph.sequence != sequence:
            self._want(-1)
            return
        self.current = True

    def _change(self, delta: Delta) -> None:
        if not self.graph.apply(delta):
            return
        match delta:
            case ChannelAdded(raw, _):
                self._rebroadcast.add(raw, self._aggregation.origins(raw), own=self._is_own(raw))
                self._release(raw)
            case ChannelUpdated(raw) | NodeAnnounced(raw):
                self._rebroadcast.add(raw, self._aggregation.origins(raw), own=self._is_own(raw))
            case ChannelSpent(short_channel_id) | ChannelRemoved(short_channel_id):
                self._rebroadcast.forget(short_channel_id)
            case _:
                assert_never(delta)

    def _is_own(self, raw: bytes) -> bool:
        """Announcements of this node go to every peer, whatever its filter says (BOLT 7)."""
        kind = int.from_bytes(raw[:2], "big")
        if kind == gossip.NODE_ANNOUNCEMENT:
            return gossip.node_id(raw) == self._node_id
        if kind == gossip.CHANNEL_ANNOUNCEMENT:
            fields = gossip.channel_fields(raw)
            return self._node_id in (fields.node_id_1, fields.node_id_2)
        channel = self.graph.channels.get(int.from_bytes(gossip.update_channel(raw), "big"))
        return channel is not None and channel.node_id(gossip.update_direction(raw)) == self._node_id

    def verdict(self, offer: int, verdict: Verdict) -> None:
        """The backend decided about an announcement: everyone who sent it is answered, once."""
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        raw, since_s = self._offers.pop(offer, (None, 0.0))
        if raw is None:
            return
        accepted, now_s = verdict is Verdict.ACCEPTED, self._runtime.monotonic()
        self.verdict_s.observe(now_s - since_s)
        self._answer(self._aggregation.settle(raw, accepted, now_s))
        if not accepted and int.from_bytes(raw[:2], "big") == gossip.CHANNEL_ANNOUNCEMENT:
            self._release(raw)

    def _release(self, announcement: bytes) -> None:
        """What came too early for this channel is looked at again."""
        for held in self._pending.release(announcement):
            self._answer((held.origin,))
            if connection := self._connections.get(held.origin):
                self._announcement(connection, held.raw)

    def _answer(self, origins: Iterable[int]) -> None:
        for origin in origins:
            if connection := self._connections.get(origin):
                connection.answered()

    @property
    def waiting(self) -> dict[str, int]:
        """How much is on its way, for the metrics."""
        return {
            "offers": len(self._offers),
            "aggregation": len(self._aggregation),
            "rebroadcast": len(self._rebroadcast),
            "syncs": len(self._syncs),
        }

    # the peers' side

    def join(self, connection: PeerConnection) -> None:
        offset_s = self._runtime.random.random() * self._rebroadcast.interval_s
        self._rebroadcast.join(connection.number, self._runtime.monotonic(), offset_s)

    def leave(self, connection: PeerConnection) -> None:
        self._rebroadcast.leave(connection.number)
        self._aggregation.leave(connection.number)
        self._syncs.pop(connection.number, None)

    def receive(self, connection: PeerConnection, raw: bytes) -> None:
        """A BOLT 7 message. Raises MalformedMessage or PeerFault for the connection to deal with."""
        kind = int.from_bytes(raw[:2], "big")
        if kind <= gossip.CHANNEL_UPDATE:
            self._announcement(connection, raw)
            return
        message = decode(raw)
        match message:
            case bolt7.QueryChannelRange():
                self._throttle(connection)
                connection.serve(map(encode, answer_range(self.graph, message)))
            case bolt7.QueryShortChannelIds():
                self._throttle(connection)
                connection.serve(answer_ids(self.graph, message))
            case bolt7.GossipTimestampFilter():
                self._throttle(connection)
                if message.chain_hash == self.graph.chain_hash:
                    self._rebroadcast.set_filter(connection.number, message)
                    connection.serve(matching(self.graph, message))
            case bolt7.ReplyChannelRange() | bolt7.ReplyShortChannelIdsEnd():
                self._sync(connection, sync.Received(message))
            case _:
                raise MalformedMessage(f"{type(message).__name__} is no gossip")

    def _throttle(self, connection: PeerConnection) -> None:
        """Queries have a rate; above it the peer is not read for a while (security: query amplification)."""
        connection.queries += 1
        if connection.queries > 4 * self._queries_per_s:
            connection.hold(Hold.QUERIES)

    def _announcement(self, connection: PeerConnection, raw: bytes) -> None:
        gossip.check_size(raw)  # bytes that are no message end the session
        if self._aggregation.knows(raw):  # no need to check its signatures again
            self._submit(connection, raw)
            return
        verdict = check(self.graph, raw, int(self._runtime.now()))
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        if verdict is Verdict.ACCEPTED:
            self._submit(connection, raw)
        elif verdict is Verdict.DUPLICATE:
            self._rebroadcast.add_origin(raw, connection.number)
        elif verdict is Verdict.UNKNOWN_CHANNEL:
            now_s = self._runtime.now()
            if self._pending.hold(self.graph, raw, connection.number, now_s):
                connection.asked()
            elif raw[:2] == b"\x01\x02":
                connection.forward(raw)  # perhaps of an unannounced channel of ours
        elif verdict is Verdict.PRIVATE:
            connection.forward(raw)
        elif verdict.is_fault:
            self._throttle(connection)  # signatures cost more to check than to forge
            connection.send([warning(f"gossip: {verdict.name.lower()}")])

    def _submit(self, connection: PeerConnection, raw: bytes) -> None:
        now_s = self._runtime.monotonic()
        answer = self._aggregation.submit(raw, connection.number, now_s)
        match answer:
            case Answer.FORWARD:
                connection.asked()
                if int.from_bytes(raw[:2], "big") == gossip.CHANNEL_ANNOUNCEMENT:
                    self._pending.expect(raw, self._runtime.now())
                while len(self._offers) >= MAX_PROCESSING:  # verdicts that never came
                    del self._offers[next(iter(self._offers))]
                self._offers[self._backend.offer(connection.number, raw)] = (raw, now_s)
            case Answer.JOINED:
                connection.asked()
            case Answer.DONE | Answer.FULL:
                pass
            case _:
                assert_never(answer)

    # syncs

    def start_sync(self, connection: PeerConnection) -> None:
        """Ask this peer for its graph."""
        features = connection.session.features if connection.session else None
        if features is None or not features.supports(Feature.GOSSIP_QUERIES):
            return
        extended = features.supports(Feature.GOSSIP_QUERIES_EX)
        self._syncs[connection.number] = sync.Sync(chain_hash=self.graph.chain_hash, extended=extended)
        self._sync(connection, sync.Start())

    def _sync(self, connection: PeerConnection, event: sync.Event) -> None:
        state = self._syncs.get(connection.number)
        if state is None:
            return
        state, effects = sync.step(state, event, self.graph, self._runtime.now())
        self._syncs[connection.number] = state
        for effect in effects:
            match effect:
                case sync.Send(message):
                    connection.send([encode(message)])
                case sync.Finished() | sync.Abandon():
                    self._syncs.pop(connection.number, None)
                case _:
                    assert_never(effect)

    # time

    def sweep(self) -> None:
        """Once a second: what is due."""
        now_s, clock_s = self._runtime.monotonic(), self._runtime.now()
        flushed = 0
        for number in self._rebroadcast.due(now_s):
            flushed += self._flush(number, now_s)  # a peer that does not read uses up nobody's turn
            if flushed == MAX_FLUSHES_PER_SWEEP:
                break
        for origins in self._aggregation.expire(now_s):
            self._answer(origins)
        for held in self._pending.expire(clock_s):
            self._answer((held.origin,))
        for number in list(self._syncs):
            if connection := self._connections.get(number):
                self._sync(connection, sync.Tick())

    def relax(self, connection: PeerConnection) -> None:
        """Once a second for each peer that asked something: its allowance grows back."""
        connection.queries = max(0.0, connection.queries - self._queries_per_s)
        if connection.queries <= self._queries_per_s:
            connection.release(Hold.QUERIES)

    def _flush(self, number: int, now_s: float) -> bool:
        """False where its turn stays due: until init is through, until the socket has room."""
        connection = self._connections.get(number)
        if connection is None:
            self._rebroadcast.leave(number)
            return False
        if not (connection.ready and connection.writable):
            return False
        connection.send(list(self._rebroadcast.flush(number, now_s).messages))
        return True


def _check_size(delta: Delta) -> None:
    """Raises MalformedMessage where the bytes in a change are not what it says: nothing below looks again."""
    match delta:
        case ChannelAdded(raw):
            kind, wanted = gossip.check_size(raw), gossip.CHANNEL_ANNOUNCEMENT
        case ChannelUpdated(raw):
            kind, wanted = gossip.check_size(raw), gossip.CHANNEL_UPDATE
        case NodeAnnounced(raw):
            kind, wanted = gossip.check_size(raw), gossip.NODE_ANNOUNCEMENT
        case _:
            return
    if kind != wanted:
        raise MalformedMessage(f"a record about message {wanted} holds a {kind}")
