"""What a frontend does while verdicts are out: one question to the backend however many peers send the same.

Origins are session numbers. The promise kept here is that every submission is answered exactly once, whatever
happens to the backend: by the verdict, at once where it is known already, or by a timeout.
"""

from enum import Enum

from msgspec import Struct, field

from node.crypto.hashes import sha256
from node.gossip import raw as gossip
from node.gossip.graph import Graph
from node.gossip.validation import MAX_FUTURE_S, is_signed_by

VERDICT_TIMEOUT_S = 60  # a chain lookup takes milliseconds; a restart of the backend a few seconds
ACCEPTED_FOR_S = 120  # how long an accepted message may take to come back as a change of the graph
MAX_PROCESSING = 10_000
MAX_PER_ORIGIN = 500  # a peer that floods fills its own share only
MAX_AWAITED_CHANNELS = 1_000
MAX_HELD_PER_CHANNEL = 8  # two updates and two node_announcements, and room for renewed ones


class Answer(Enum):
    """What becomes of a submission."""

    FORWARD = 1  # the first: offer it to the backend; the verdict will answer
    JOINED = 2  # somebody was first; the verdict will answer
    DONE = 3  # answer now: accepted a moment ago, or this peer is waiting for it already
    FULL = 4  # answer now: not looked at


class _Entry(Struct):
    deadline_s: float
    seen_from: set[int] = field(default_factory=set)  # who has it, so that it is not sent back
    waiting: set[int] = field(default_factory=set)  # who is to be answered


class Aggregation:
    """The table of messages that wait for a verdict, and shortly of those that were accepted."""

    def __init__(self) -> None:
        self._processing: dict[bytes, _Entry] = {}
        self._accepted: dict[bytes, _Entry] = {}
        self._load: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._processing)

    def knows(self, raw: bytes) -> bool:
        """Whether this message waits for its verdict or was just accepted: its signatures need no second check."""
        digest = sha256(raw)
        return digest in self._processing or digest in self._accepted

    def submit(self, raw: bytes, origin: int, now_s: float) -> Answer:
        """Register that a peer sent this message."""
        digest = sha256(raw)
        if (done := self._accepted.get(digest)) is not None:
            done.seen_from.add(origin)
            return Answer.DONE
        entry = self._processing.get(digest)
        if entry is not None and origin in entry.waiting:
            return Answer.DONE
        if self._load.get(origin, 0) >= MAX_PER_ORIGIN:
            return Answer.FULL
        answer = Answer.JOINED
        if entry is None:
            if len(self._processing) >= MAX_PROCESSING:
                return Answer.FULL
            entry = self._processing[digest] = _Entry(now_s + VERDICT_TIMEOUT_S)
            answer = Answer.FORWARD
        entry.waiting.add(origin)
        entry.seen_from.add(origin)
        self._load[origin] = self._load.get(origin, 0) + 1
        return answer

    def settle(self, raw: bytes, accepted: bool, now_s: float) -> frozenset[int]:
        """The verdict is in: the origins to answer now; none where they have been answered by a timeout."""
        digest = sha256(raw)
        entry = self._processing.pop(digest, None)
        if entry is None:
            return frozenset()
        waiting = self._release(entry)
        if accepted:
            entry.deadline_s = now_s + ACCEPTED_FOR_S
            self._accepted[digest] = entry
        return waiting

    def origins(self, raw: bytes) -> frozenset[int]:
        """Everyone who sent us this message: asked when it became part of the graph, before it is relayed."""
        digest = sha256(raw)
        entry = self._accepted.pop(digest, None) or self._processing.get(digest)
        return frozenset(entry.seen_from) if entry is not None else frozenset()

    def leave(self, origin: int) -> None:
        """A session ended: nobody is left to answer."""
        if self._load.pop(origin, 0):
            for entry in self._processing.values():
                entry.waiting.discard(origin)

    def expire(self, now_s: float) -> tuple[frozenset[int], ...]:
        """Give up on overdue verdicts: the origins to answer, one set for each message."""
        released = []
        # both tables are in order of their deadlines, since each has one delay
        while self._processing and (entry := _oldest(self._processing)).deadline_s <= now_s:
            del self._processing[next(iter(self._processing))]
            released.append(self._release(entry))
        while self._accepted and _oldest(self._accepted).deadline_s <= now_s:
            del self._accepted[next(iter(self._accepted))]
        return tuple(released)

    def _release(self, entry: _Entry) -> frozenset[int]:
        waiting = frozenset(entry.waiting)
        entry.waiting.clear()
        for origin in waiting:
            self._load[origin] -= 1
            if not self._load[origin]:
                del self._load[origin]
        return waiting


def _oldest(table: dict[bytes, _Entry]) -> _Entry:
    return next(iter(table.values()))


class Held(Struct, frozen=True):
    """A message that came before the verdict on its channel, and who sent it and is to be answered."""

    raw: bytes
    origin: int


class _Awaited(Struct):
    short_channel_id: bytes
    node_ids: tuple[bytes, bytes]
    deadline_s: float
    held: list[Held] = field(default_factory=list)


class Pending:
    """Updates and node_announcements of channels whose announcement awaits its verdict.

    Keys are bytes, since strangers choose them. Only what the announced nodes signed is held, so that nobody else
    can use up a channel's few places.
    """

    def __init__(self) -> None:
        self._by_channel: dict[bytes, _Awaited] = {}
        self._by_node: dict[bytes, _Awaited] = {}

    def expect(self, announcement: bytes, now_s: float) -> None:
        """A channel_announcement with good signatures was offered to the backend."""
        fields = gossip.channel_fields(announcement)
        key = fields.short_channel_id.to_bytes(8, "big")
        if key in self._by_channel or len(self._by_channel) >= MAX_AWAITED_CHANNELS:
            return
        nodes = (fields.node_id_1, fields.node_id_2)
        awaited = self._by_channel[key] = _Awaited(key, nodes, now_s + VERDICT_TIMEOUT_S)
        for node_id in nodes:
            self._by_node.setdefault(node_id, awaited)

    def hold(self, graph: Graph, raw: bytes, origin: int, now_s: float) -> bool:
        """Keep a message whose channel is unknown yet awaited; its origin is answered after `release`."""
        kind = gossip.check_size(raw)
        if kind == gossip.CHANNEL_UPDATE:
            awaited = self._by_channel.get(gossip.update_channel(raw))
            node_id = awaited.node_ids[gossip.update_direction(raw)] if awaited else b""
            timestamp = gossip.update_timestamp(raw)
        else:
            node_id = gossip.node_id(raw)
            awaited = self._by_node.get(node_id)
            timestamp = gossip.node_timestamp(raw)
        if awaited is None or len(awaited.held) >= MAX_HELD_PER_CHANNEL or timestamp > now_s + MAX_FUTURE_S:
            return False
        if any(held.origin == origin and held.raw == raw for held in awaited.held):
            return False
        if not is_signed_by(raw, node_id):
            return False
        awaited.held.append(Held(raw, origin))
        return True

    def release(self, announcement: bytes) -> tuple[Held, ...]:
        """The verdict on this channel_announcement is in: what to check again now, oldest first."""
        key = gossip.channel_fields(announcement).short_channel_id.to_bytes(8, "big")
        awaited = self._by_channel.get(key)
        return self._forget(awaited) if awaited is not None else ()

    def expire(self, now_s: float) -> tuple[Held, ...]:
        """What was held for announcements whose verdict never came: to be answered."""
        released: list[Held] = []
        while self._by_channel and (first := next(iter(self._by_channel.values()))).deadline_s <= now_s:
            released += self._forget(first)
        return tuple(released)

    def _forget(self, awaited: _Awaited) -> tuple[Held, ...]:
        del self._by_channel[awaited.short_channel_id]
        for node_id in awaited.node_ids:
            if self._by_node.get(node_id) is awaited:
                del self._by_node[node_id]
        return tuple(awaited.held)
