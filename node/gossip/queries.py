"""Answers to BOLT 7 queries, and the backlog that a gossip_timestamp_filter asks for, out of a graph.

All answers are iterators: the caller takes as much as the peer's connection has room for, and the graph may change
in between. What one query can cost is bounded: ids asked twice count once, a node is announced once, ranges are
found by bisection and checksums are stored with the updates.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from msgspec.structs import replace

from node.errors import MalformedMessage
from node.gossip import raw as gossip
from node.gossip.graph import Graph, KnownChannel
from node.wire import codec
from node.wire.bolt7 import (
    EncodedArray,
    GossipTimestampFilter,
    QueryChannelRange,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
)
from node.wire.fields import MAX_MESSAGE_SIZE, decode_bigsize

UNCOMPRESSED = 0  # BOLT 7, encoding types: the other one was zlib, which must not be used any more
ID_SIZE = 8
WANT_TIMESTAMPS, WANT_CHECKSUMS = 1, 2
WANT_CHANNEL, WANT_UPDATE_1, WANT_UPDATE_2, WANT_NODE_1, WANT_NODE_2 = 1, 2, 4, 8, 16
WANT_ALL = 31
# reply_channel_range without its arrays: 47 bytes of fields, 2 encoding bytes, up to 4 bytes for each TLV header
MAX_IDS_PER_REPLY = (MAX_MESSAGE_SIZE - 60) // ID_SIZE
MAX_EXTENDED_IDS_PER_REPLY = (MAX_MESSAGE_SIZE - 60) // (3 * ID_SIZE)
SLICE = 256  # channels that a cursor looks up at a time: its place in the order is searched once for so many


def encode_ids(short_channel_ids: Sequence[int]) -> bytes:
    """encoded_short_ids of ascending short_channel_ids."""
    return struct.pack(f">B{len(short_channel_ids)}Q", UNCOMPRESSED, *short_channel_ids)


def decode_ids(encoded: bytes) -> tuple[int, ...]:
    """The short_channel_ids in encoded_short_ids. Raises MalformedMessage, for compressed ones too."""
    data = _uncompressed(encoded[:1], encoded[1:])
    if len(data) % ID_SIZE:
        raise MalformedMessage("encoded_short_ids holds no whole number of ids")
    return struct.unpack(f">{len(data) // ID_SIZE}Q", data)


def decode_flags(flags: EncodedArray) -> list[int]:
    """The query flags, one bigsize each. Raises MalformedMessage."""
    data = _uncompressed(bytes((flags.encoding_type,)), flags.encoded)
    found, offset = [], 0
    while offset < len(data):
        flag, offset = decode_bigsize(data, offset)
        found.append(flag)
    return found


def decode_timestamps(timestamps: EncodedArray) -> tuple[int, ...]:
    """Two timestamps for each channel. Raises MalformedMessage."""
    data = _uncompressed(bytes((timestamps.encoding_type,)), timestamps.encoded)
    return decode_pairs(data)


def decode_pairs(data: bytes) -> tuple[int, ...]:
    """Checksums or timestamps, two 32-bit numbers for each channel. Raises MalformedMessage."""
    if len(data) % 8:
        raise MalformedMessage("holds no whole number of pairs")
    return struct.unpack(f">{len(data) // 4}I", data)


def answer_range(graph: Graph, query: QueryChannelRange) -> Iterator[ReplyChannelRange]:
    """The replies to a query_channel_range: they cover exactly the range asked for, in whole blocks where possible."""
    if query.chain_hash != graph.chain_hash:
        yield ReplyChannelRange(
            query.chain_hash, query.first_blocknum, query.number_of_blocks, 1, encode_ids(())
        )
        return
    option = query.query_option or 0
    extended = option & (WANT_TIMESTAMPS | WANT_CHECKSUMS)
    most = MAX_EXTENDED_IDS_PER_REPLY if extended else MAX_IDS_PER_REPLY
    ids = graph.within(query.first_blocknum, query.number_of_blocks)
    first, start = query.first_blocknum, 0
    while True:
        end = _whole_blocks(ids, start, most)
        last = end == len(ids)
        covered = query.first_blocknum + query.number_of_blocks
        if not last:
            covered = gossip.block_height(ids[end - 1]) + 1
        empty = ReplyChannelRange(graph.chain_hash, first, covered - first, int(last), b"")
        yield _with_channels(graph, empty, ids[start:end], option)
        if last:
            return
        # a block too large for one reply continues in the next
        first, start = min(covered, gossip.block_height(ids[end])), end


def answer_ids(graph: Graph, query: QueryShortChannelIds) -> Iterator[bytes]:
    """Raw messages for the channels asked for, then reply_short_channel_ids_end. Raises MalformedMessage at once."""
    asked = _asked(graph, query)
    ours = query.chain_hash == graph.chain_hash
    return _answers(graph, asked if ours else {}, ReplyShortChannelIdsEnd(query.chain_hash, int(ours)))


def matching(graph: Graph, wanted: GossipTimestampFilter) -> Iterator[bytes]:
    """Every message in the graph that a filter lets through: channels with their updates, then nodes.

    The graph may change while this is read: each slice continues after the last short_channel_id.
    """
    # "from now on", as most ask
    later_than_all = wanted.first_timestamp > int.from_bytes(graph.newest, "big")
    if wanted.chain_hash != graph.chain_hash or later_than_all:
        return
    first, end = wanted.first_timestamp, wanted.first_timestamp + wanted.timestamp_range
    channels, spent, times_of = graph.channels, graph.spent, struct.Struct(">II").unpack
    last = -1
    while slice_ := graph.after(last, SLICE):
        last = slice_[-1]
        for channel in map(channels.get, slice_):
            if channel is None or channel.short_channel_id in spent:
                continue
            time_1, time_2 = times_of(channel.timestamps)
            # time 0 is "no update": a channel_announcement without any is not sent (BOLT 7)
            send_1, send_2 = first <= time_1 < end and time_1, first <= time_2 < end and time_2
            if send_1 or send_2:
                yield channel.announcement
                if send_1:
                    yield channel.update_1  # type: ignore[misc]  # it is what has the timestamp
                if send_2:
                    yield channel.update_2  # type: ignore[misc]  # as above
    for node in map(graph.nodes.get, tuple(graph.nodes)):
        if node is None or node.announcement is None:
            continue
        if first <= gossip.node_timestamp(node.announcement) < end:
            yield node.announcement


def _uncompressed(encoding: bytes, data: bytes) -> bytes:
    if encoding != b"\0":
        raise MalformedMessage(f"unknown encoding {encoding.hex() or 'missing'}")
    return data


def _whole_blocks(ids: Sequence[int], start: int, most: int) -> int:
    """Where a reply that begins at `start` ends: at a block's end, unless one block alone is too large."""
    end = start + most
    if end >= len(ids):
        return len(ids)
    cut = bisect_left(ids, gossip.block_height(ids[end]) << 40, start, end)
    return cut if cut > start else end


def _with_channels(
    graph: Graph, reply: ReplyChannelRange, ids: Sequence[int], option: int
) -> ReplyChannelRange:
    channels = [
        channel
        for channel in map(graph.channels.get, ids)
        if channel is not None and channel.short_channel_id not in graph.spent
    ]
    timestamps = checksums = None
    if option & WANT_TIMESTAMPS:
        timestamps = EncodedArray(UNCOMPRESSED, b"".join([c.timestamps for c in channels]))
    if option & WANT_CHECKSUMS:
        checksums = b"".join([c.checksums for c in channels])
    encoded = encode_ids([c.short_channel_id for c in channels])
    return replace(reply, encoded_short_ids=encoded, timestamps=timestamps, checksums=checksums)


def _asked(graph: Graph, query: QueryShortChannelIds) -> dict[int, int]:
    """The ids asked for that we know, each once, with its flags.

    Strangers choose the ids, up to 8,000 in a message: those that we do not know cost a look and nothing else, and are
    no keys of a dict of ours, which they could have collide.
    """
    ids = decode_ids(query.encoded_short_ids)
    flags: Iterable[int] = repeat(WANT_ALL)
    if query.query_flags is not None:
        flags = given = decode_flags(query.query_flags)
        if len(given) != len(ids):
            raise MalformedMessage(f"{len(given)} query flags for {len(ids)} ids")
    found = zip(map(graph.channels.get, ids), flags)  # noqa: B905 - equally many, or flags without end
    return {channel.short_channel_id: wanted for channel, wanted in found if channel is not None}


def _answers(graph: Graph, asked: dict[int, int], end: ReplyShortChannelIdsEnd) -> Iterator[bytes]:
    announced: set[bytes] = set()
    for short_channel_id, flags in asked.items():
        channel = graph.channels.get(short_channel_id)
        if channel is None or short_channel_id in graph.spent:  # gone since it was asked for
            continue
        if flags & WANT_CHANNEL:
            yield channel.announcement
        if flags & WANT_UPDATE_1 and channel.update_1 is not None:
            yield channel.update_1
        if flags & WANT_UPDATE_2 and channel.update_2 is not None:
            yield channel.update_2
        yield from _nodes(graph, channel, flags, announced)
    yield codec.encode(end)


def _nodes(graph: Graph, channel: KnownChannel, flags: int, announced: set[bytes]) -> Iterator[bytes]:
    for wanted, node_id in ((WANT_NODE_1, channel.node_id_1), (WANT_NODE_2, channel.node_id_2)):
        if flags & wanted and node_id not in announced:
            announced.add(node_id)
            node = graph.nodes.get(node_id)
            if node is not None and node.announcement is not None:
                yield node.announcement
