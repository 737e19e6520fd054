"""Staggered rebroadcast: one shared log of what is new, and for each peer a place in it.

A record stays until every peer has passed it, so that nothing is copied per peer. Peers are session numbers. No
record goes to a peer that sent it to us; relayed ones go only to peers whose gossip_timestamp_filter lets them
through; our own go to everyone (BOLT 7: they ignore filters).
"""

from msgspec import Struct

from node.gossip import raw as gossip
from node.wire.bolt7 import GossipTimestampFilter

FLUSH_INTERVAL_S = 60.0  # BOLT 7, rebroadcasting
MAX_RECORDS = 100_000  # some five hours of the public network; a peer that is further behind can still query
MAX_WAITING_ANNOUNCEMENTS = 10_000
DROPPED_AT_ONCE = 1_000  # where the log is full: shifting it is not done for each record
MAX_PER_FLUSH = 2_000  # messages handed out at once; `flush` tells whether more are left


class _Record(Struct, gc=False):
    about: bytes  # channel, channel and direction, or node: a newer record about the same replaces this one
    raw: bytes | None  # None: replaced
    timestamp: int
    own: bool
    origins: frozenset[int]


class _Cursor(Struct):
    next_flush_s: float
    position: int  # sequence number of the next record to look at
    relayed_from: (
        int  # what is older than the filter was served as backlog; our own records are sent all the same
    )
    wanted: GossipTimestampFilter | None = None


class Flush(Struct, frozen=True):
    """What to send to a peer now; `more` where the batch was full and another flush would give the rest."""

    messages: tuple[bytes, ...]
    more: bool


class Rebroadcast:
    """The log, and each peer's place in it."""

    def __init__(self, interval_s: float = FLUSH_INTERVAL_S) -> None:
        self.interval_s = interval_s
        self._log: list[_Record] = []
        self._base = 0  # sequence number of the first record in the log
        self._newest: dict[bytes, int] = {}  # what a message is about -> sequence number of its record
        self._waiting: dict[bytes, _Record] = {}  # channel_announcements without an update so far
        self._peers: dict[int, _Cursor] = {}
        self._trim_at_s = 0.0

    def __len__(self) -> int:
        return len(self._log)

    def join(self, peer: int, now_s: float, offset_s: float) -> None:
        """A peer is connected. `offset_s`, drawn from [0, interval), staggers its flushes against the others'."""
        end = self._base + len(self._log)
        self._peers[peer] = _Cursor(now_s + offset_s, end, end)

    def leave(self, peer: int) -> None:
        self._peers.pop(peer, None)

    def set_filter(self, peer: int, wanted: GossipTimestampFilter) -> None:
        """From now on relay what `wanted` lets through; the caller serves the backlog out of the graph."""
        cursor = self._peers[peer]
        cursor.wanted = wanted
        cursor.relayed_from = self._base + len(self._log)

    def add(self, raw: bytes, origins: frozenset[int] = frozenset(), *, own: bool = False) -> None:
        """Log a message that is new in the graph.

        BOLT 7: a channel_announcement has the time of its first channel_update, and waits for that.
        """
        about = _about(raw)
        match int.from_bytes(raw[:2], "big"):
            case gossip.CHANNEL_ANNOUNCEMENT:
                self._wait(_Record(about, raw, 0, own, origins))
            case gossip.CHANNEL_UPDATE:
                timestamp = gossip.update_timestamp(raw)
                announcement = self._waiting.pop(gossip.update_channel(raw), None)
                if announcement is not None:
                    announcement.timestamp = timestamp
                    self._append(announcement)
                self._append(_Record(about, raw, timestamp, own, origins))
            case _:
                self._append(_Record(about, raw, gossip.node_timestamp(raw), own, origins))

    def add_origin(self, raw: bytes, peer: int) -> None:
        """Note that this peer has the message too, so that it is not sent there."""
        about = _about(raw)
        record = self._waiting.get(about)
        if record is None and (place := self._newest.get(about)) is not None:
            record = self._log[place - self._base]
        if record is not None and record.raw == raw:
            record.origins |= {peer}

    def forget(self, short_channel_id: int) -> None:
        """The channel is being closed (BOLT 7: no more of its messages are relayed)."""
        about = short_channel_id.to_bytes(8, "big")
        self._waiting.pop(about, None)
        for key in (about, about + b"\0", about + b"\1"):
            if (place := self._newest.pop(key, None)) is not None:
                self._log[place - self._base].raw = None

    def due(self, now_s: float) -> tuple[int, ...]:
        """The peers whose turn to be flushed has come, the longest due first; also drops what everyone has passed."""
        if now_s >= self._trim_at_s:
            self._trim_at_s = now_s + self.interval_s
            self._trim()
        due = [
            (cursor.next_flush_s, peer)
            for peer, cursor in self._peers.items()
            if cursor.next_flush_s <= now_s
        ]
        return tuple([peer for _, peer in sorted(due)])

    def flush(self, peer: int, now_s: float) -> Flush:
        """Take what this peer is to get. The next turn is an interval later, unless `more` is left."""
        cursor = self._peers[peer]
        end = self._base + len(self._log)
        position = max(cursor.position, self._base)
        messages: list[bytes] = []
        for record in self._log[position - self._base :]:
            if self._is_for(record, peer, cursor, position) and record.raw is not None:
                if len(messages) == MAX_PER_FLUSH:
                    break
                messages.append(record.raw)
            position += 1
        cursor.position = position
        if position == end:
            while cursor.next_flush_s <= now_s:
                cursor.next_flush_s += self.interval_s
        return Flush(tuple(messages), position < end)

    def _is_for(self, record: _Record, peer: int, cursor: _Cursor, sequence: int) -> bool:
        if peer in record.origins:
            return False
        if record.own:
            return True
        wanted = cursor.wanted
        if wanted is None or sequence < cursor.relayed_from:
            return False
        return 0 <= record.timestamp - wanted.first_timestamp < wanted.timestamp_range

    def _wait(self, record: _Record) -> None:
        if len(self._waiting) >= MAX_WAITING_ANNOUNCEMENTS:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[record.about] = record

    def _append(self, record: _Record) -> None:
        older = self._newest.get(record.about)
        if older is not None:
            self._log[older - self._base].raw = None
        if len(self._log) >= MAX_RECORDS:
            self._drop(DROPPED_AT_ONCE)
        self._newest[record.about] = self._base + len(self._log)
        self._log.append(record)

    def _trim(self) -> None:
        end = self._base + len(self._log)
        passed = min((cursor.position for cursor in self._peers.values()), default=end)
        self._drop(passed - self._base)

    def _drop(self, count: int) -> None:
        for place, record in enumerate(self._log[: max(count, 0)], self._base):
            if self._newest.get(record.about) == place:
                del self._newest[record.about]
        del self._log[: max(count, 0)]
        self._base += max(count, 0)


def _about(raw: bytes) -> bytes:
    """What a newer message would replace: 8 bytes for a channel, 9 for one direction of it, 33 for a node."""
    match int.from_bytes(raw[:2], "big"):
        case gossip.CHANNEL_ANNOUNCEMENT:
            return gossip.channel_fields(raw).short_channel_id.to_bytes(8, "big")
        case gossip.CHANNEL_UPDATE:
            return gossip.update_channel(raw) + bytes((gossip.update_direction(raw),))
        case _:
            return gossip.node_id(raw)
