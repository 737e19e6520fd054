"""Asking a peer for its graph: which channels there are, then for what we lack, in small pieces, then for news.

`step(sync, event, graph, now_s)` is pure, the graph being read only. What is asked for comes in as ordinary gossip;
here only the replies that steer the queries are seen. A peer that breaks the rules of replies raises PeerFault; one that
goes silent is given up by the clock.
"""

from enum import Enum, auto
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.errors import PeerFault
from node.gossip import queries
from node.gossip.graph import STALE_AFTER_S, Graph, KnownChannel
from node.wire.bolt7 import (
    EncodedArray,
    GossipTimestampFilter,
    QueryChannelRange,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
)

REPLY_TIMEOUT_S = 60.0  # between two replies; far more than a slow peer over Tor needs for one
MAX_IDS = 100_000  # in all replies to one query: twice the public network
MAX_REPLIES = 2_000  # eclair's smallest chunks would need a few dozen for the whole network
IDS_PER_QUERY = (
    1_000  # some 1.2 MB of answers; at the usual 5 queries a second the whole network takes ten seconds
)
ALL_BLOCKS = 0xFFFF_FFFF
# News is asked for from a little before the sync began: what happened meanwhile is not missed.
OVERLAP_S = 600


class Phase(Enum):
    NEW = auto()
    RANGE = auto()
    IDS = auto()
    DONE = auto()
    FAILED = auto()


class Sync(Struct, frozen=True, kw_only=True):
    """One sync with one peer; ids and flags wanted are kept as the bytes in which they will travel."""

    chain_hash: bytes
    extended: bool  # the peer offers gossip_queries_ex: it can tell timestamps and takes flags
    first_block: int = 0
    phase: Phase = Phase.NEW
    started_s: float = 0.0
    deadline_s: float = 0.0
    reply_block: int = 0  # first_blocknum of the last reply
    last_id: int = -1  # the highest short_channel_id named so far
    replies: int = 0
    named: int = 0
    wanted_ids: bytes = b""
    wanted_flags: bytes = b""


class Start(Struct, frozen=True):
    """The session is ready and the peer is to be asked."""


class Received(Struct, frozen=True):
    message: ReplyChannelRange | ReplyShortChannelIdsEnd


class Tick(Struct, frozen=True):
    """Time passed."""


class Send(Struct, frozen=True):
    message: QueryChannelRange | QueryShortChannelIds | GossipTimestampFilter


class Finished(Struct, frozen=True):
    """All that was wanted has been asked for and answered; what comes now is news."""


class Abandon(Struct, frozen=True):
    """The peer does not answer: sync with another."""

    reason: str


Event = Start | Received | Tick
Effect = Send | Finished | Abandon


def step(sync: Sync, event: Event, graph: Graph, now_s: float) -> tuple[Sync, tuple[Effect, ...]]:
    """Advance a sync by one event. Raises PeerFault for replies that no honest peer sends."""
    match event:
        case Start():
            return _start(sync, now_s) if sync.phase is Phase.NEW else (sync, ())
        case Received(message):
            return _receive(sync, message, graph, now_s)
        case Tick():
            if sync.phase in (Phase.RANGE, Phase.IDS) and now_s >= sync.deadline_s:
                # it may know no queries, as LDK knows none for ids: a filter has it tell everything all the same
                everything = GossipTimestampFilter(sync.chain_hash, 0, ALL_BLOCKS)
                return replace(sync, phase=Phase.FAILED), (Send(everything), Abandon("no reply in time"))
            return sync, ()
        case _:
            assert_never(event)


def _receive(
    sync: Sync, message: ReplyChannelRange | ReplyShortChannelIdsEnd, graph: Graph, now_s: float
) -> tuple[Sync, tuple[Effect, ...]]:
    """Take a reply that we wait for; one unasked for, or about another chain, changes nothing."""
    if message.chain_hash != sync.chain_hash:
        return sync, ()
    if sync.phase is Phase.RANGE and isinstance(message, ReplyChannelRange):
        return _receive_range(sync, message, graph, now_s)
    if sync.phase is Phase.IDS and isinstance(message, ReplyShortChannelIdsEnd):
        return _ask_ids(sync, now_s)
    return sync, ()


def _start(sync: Sync, now_s: float) -> tuple[Sync, tuple[Effect, ...]]:
    option = queries.WANT_TIMESTAMPS | queries.WANT_CHECKSUMS if sync.extended else None
    query = QueryChannelRange(sync.chain_hash, sync.first_block, ALL_BLOCKS - sync.first_block, option)
    started = replace(
        sync,
        phase=Phase.RANGE,
        started_s=now_s,
        deadline_s=now_s + REPLY_TIMEOUT_S,
    )
    return started, (Send(query),)


def _receive_range(
    sync: Sync, reply: ReplyChannelRange, graph: Graph, now_s: float
) -> tuple[Sync, tuple[Effect, ...]]:
    ids = queries.decode_ids(reply.encoded_short_ids)
    _check_reply(sync, reply, ids)
    wanted_ids, wanted_flags = _wanted(reply, ids, graph, now_s)
    sync = replace(
        sync,
        deadline_s=now_s + REPLY_TIMEOUT_S,
        reply_block=reply.first_blocknum,
        last_id=ids[-1] if ids else sync.last_id,
        replies=sync.replies + 1,
        named=sync.named + len(ids),
        wanted_ids=sync.wanted_ids + wanted_ids,
        wanted_flags=sync.wanted_flags + wanted_flags,
    )
    # BOLT 7: the last reply covers the end of the range and says that it is the last
    complete = reply.sync_complete and reply.first_blocknum + reply.number_of_blocks >= ALL_BLOCKS
    return _ask_ids(sync, now_s) if complete else (sync, ())


def _check_reply(sync: Sync, reply: ReplyChannelRange, ids: tuple[int, ...]) -> None:
    """BOLT 7, reply_channel_range: in order, about the range asked for; and in our bounds."""
    end = reply.first_blocknum + reply.number_of_blocks
    if reply.first_blocknum < sync.reply_block:
        raise PeerFault("reply_channel_range goes backwards")
    if sync.replies == 0 and reply.first_blocknum > sync.first_block:
        raise PeerFault("reply_channel_range leaves out the beginning")
    if end <= sync.first_block:
        raise PeerFault("reply_channel_range is about other blocks")
    if sync.replies >= MAX_REPLIES:
        raise PeerFault("reply_channel_range never ends")
    if sync.named + len(ids) > MAX_IDS:
        raise PeerFault(f"reply_channel_range names more than {MAX_IDS} channels")
    before = sync.last_id
    for short_channel_id in ids:
        if short_channel_id <= before:
            raise PeerFault("reply_channel_range is not in ascending order")
        before = short_channel_id
    if ids and not reply.first_blocknum <= ids[0] >> 40 <= ids[-1] >> 40 < end:
        raise PeerFault("reply_channel_range names channels of other blocks")


def _wanted(
    reply: ReplyChannelRange, ids: tuple[int, ...], graph: Graph, now_s: float
) -> tuple[bytes, bytes]:
    """Which of these channels to ask for, and what about each."""
    times = queries.decode_timestamps(reply.timestamps) if reply.timestamps is not None else None
    sums = queries.decode_pairs(reply.checksums) if reply.checksums is not None else None
    for pairs in (times, sums):
        if pairs is not None and len(pairs) != 2 * len(ids):
            raise PeerFault("reply_channel_range does not have one pair for each channel")
    oldest = int(now_s) - STALE_AFTER_S
    wanted_ids, wanted_flags = [], bytearray()
    for index, short_channel_id in enumerate(ids):
        channel = graph.channels.get(short_channel_id)
        theirs = times[2 * index : 2 * index + 2] if times is not None else None
        if channel is None:
            flags = 0 if theirs is not None and _is_stale(theirs, oldest) else queries.WANT_ALL
        elif theirs is None:
            flags = 0  # without timestamps there is no telling; news will come by itself
        else:
            checksums = sums[2 * index : 2 * index + 2] if sums is not None else None
            flags = _newer(channel, theirs, checksums, oldest)
        if flags:
            wanted_ids.append(short_channel_id)
            wanted_flags.append(flags)
    return queries.encode_ids(wanted_ids)[1:], bytes(wanted_flags)


def _is_stale(times: tuple[int, ...], oldest: int) -> bool:
    """Whether we would prune the channel at once; without any update it may be brand new."""
    return any(0 < time < oldest for time in times)


def _newer(
    channel: KnownChannel, times: tuple[int, ...], checksums: tuple[int, ...] | None, oldest: int
) -> int:
    """Flags for the updates that the peer has newer and, where it can tell, different."""
    flags = 0
    for direction, want in ((0, queries.WANT_UPDATE_1), (1, queries.WANT_UPDATE_2)):
        if times[direction] <= max(channel.timestamp(direction), oldest):
            continue
        ours = int.from_bytes(channel.checksums[4 * direction : 4 * direction + 4], "big")
        renewal_due = channel.timestamp(direction) < oldest + STALE_AFTER_S // 2
        if checksums is None or checksums[direction] != ours or renewal_due:
            flags |= want
    return flags


def _ask_ids(sync: Sync, now_s: float) -> tuple[Sync, tuple[Effect, ...]]:
    """The next piece of what is wanted; after the last one, the filter that starts the stream of news."""
    if not sync.wanted_ids:
        since = max(0, int(sync.started_s) - OVERLAP_S)
        news = GossipTimestampFilter(sync.chain_hash, since, ALL_BLOCKS - since)
        return replace(sync, phase=Phase.DONE), (Send(news), Finished())
    ids, flags = sync.wanted_ids[: queries.ID_SIZE * IDS_PER_QUERY], sync.wanted_flags[:IDS_PER_QUERY]
    query = QueryShortChannelIds(
        sync.chain_hash,
        bytes((queries.UNCOMPRESSED,)) + ids,
        EncodedArray(queries.UNCOMPRESSED, flags) if sync.extended else None,
    )
    asking = replace(
        sync,
        phase=Phase.IDS,
        deadline_s=now_s + REPLY_TIMEOUT_S,
        wanted_ids=sync.wanted_ids[len(ids) :],
        wanted_flags=sync.wanted_flags[len(flags) :],
    )
    return asking, (Send(query),)
