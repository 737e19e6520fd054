"""One peer's download of the whole graph, by queries or by a filter. Sans-IO, and nothing that comes is kept.

Only the ids that are still to be asked for wait here, packed as they came (BOLT 7, encoded_short_ids), and peers that
were told the same ids share them.
"""

from collections import deque

from node.gossip import raw as gossip
from node.wire import bolt7
from node.wire.codec import decode_as, encode

EVER = 0xFFFF_FFFF
# A filter's backlog has no end that is said. A query behind it is answered when it is through, by nodes that keep the
# order; so long without gossip after the answer, and it is through with any node.
QUIET_S = 2.0
MARKER = (0, 1)  # first_blocknum and number_of_blocks of that query: no channel is in the first block
MAX_WAITING_REPLIES = 1_000  # of 8 thousand ids each

_ANNOUNCEMENTS = frozenset(
    kind.to_bytes(2, "big")
    for kind in (gossip.CHANNEL_ANNOUNCEMENT, gossip.NODE_ANNOUNCEMENT, gossip.CHANNEL_UPDATE)
)
_RANGE = bolt7.ReplyChannelRange.number.to_bytes(2, "big")
_END = bolt7.ReplyShortChannelIdsEnd.number.to_bytes(2, "big")


class Ids:
    """The encoded_short_ids of all syncs of a storm, each kept once."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def shared(self, encoded: bytes) -> bytes:
        if len(self._known) >= MAX_WAITING_REPLIES:
            self._known.clear()
        return self._known.setdefault(encoded, encoded)


class Sync:
    """Mutable; feed it what the peer gets, send what it returns, until `complete`."""

    __slots__ = (
        "_chain_hash",
        "_ids",
        "_listed",
        "_waiting",
        "_wanted",
        "began_s",
        "bytes",
        "complete",
        "last_s",
        "messages",
    )

    def __init__(self, chain_hash: bytes, now_s: float, wanted: int | None, ids: Ids | None) -> None:
        """`ids`: by queries; None: by a filter. `wanted`: messages in a filter's backlog, if known."""
        self._chain_hash = chain_hash
        self._ids = ids
        self._wanted = wanted
        self._waiting: deque[bytes] | None = None
        self._listed = False  # every id has been said; for a filter: its marker was answered
        self.began_s = self.last_s = now_s
        self.messages = 0
        self.bytes = 0
        self.complete = False

    @property
    def by_queries(self) -> bool:
        return self._ids is not None

    def start(self) -> tuple[bytes, ...]:
        if self._ids is None:
            wanted = bolt7.GossipTimestampFilter(self._chain_hash, 0, EVER)
            return encode(wanted), encode(bolt7.QueryChannelRange(self._chain_hash, *MARKER))
        return (encode(bolt7.QueryChannelRange(self._chain_hash, 0, EVER)),)

    def receive(self, raw: bytes, now_s: float) -> bytes | None:
        """One message; what to send next. Raises MalformedMessage."""
        kind = raw[:2]
        if kind in _ANNOUNCEMENTS:
            self.messages += 1
            self.bytes += len(raw)
            self.last_s = now_s
            if self.messages == self._wanted and self._ids is None:
                self.complete = True
        elif self._ids is None:
            self._listed = self._listed or kind == _RANGE
        elif kind == _RANGE:
            return self._range(decode_as(bolt7.ReplyChannelRange, raw), self._ids)
        elif kind == _END and self._listed:
            self.last_s = now_s
            return self._next()
        return None

    def check(self, now_s: float) -> None:
        """Now and then: whether a filter's backlog has run dry."""
        if self._ids is None and self._wanted is None and self._listed:
            self.complete = self.complete or now_s - self.last_s >= QUIET_S

    def _range(self, reply: bolt7.ReplyChannelRange, ids: Ids) -> bytes | None:
        if self._waiting is None:
            self._waiting = deque(maxlen=MAX_WAITING_REPLIES)
        if len(reply.encoded_short_ids) > 1:
            self._waiting.append(ids.shared(reply.encoded_short_ids))
        # BOLT 7, reply_channel_range: the last one reaches the end of what was asked for
        if self._listed or reply.first_blocknum + reply.number_of_blocks < EVER:
            return None
        self._listed = True
        return self._next()

    def _next(self) -> bytes | None:
        """The next ids: those of one reply_channel_range fit into one query_short_channel_ids."""
        if not self._waiting:
            self.complete = True
            return None
        return encode(bolt7.QueryShortChannelIds(self._chain_hash, self._waiting.popleft()))
