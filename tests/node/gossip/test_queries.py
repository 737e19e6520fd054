"""Answers to queries: BOLT 7's vectors, whole blocks, no message twice."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.graph_generator import REGTEST, generate
from node.errors import MalformedMessage
from node.gossip import queries
from node.gossip import raw as gossip
from node.gossip.graph import Graph
from node.wire import codec
from node.wire.bolt7 import (
    EncodedArray,
    GossipTimestampFilter,
    QueryChannelRange,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
)

VECTORS = json.loads(Path("tests/vectors/bolt7_extended_queries.json").read_text())["vectors"]
OTHER_CHAIN = bytes(32)


def scid(text):
    block, index, output = map(int, text.split("x"))
    return block << 40 | index << 16 | output


def decoded_ids(array, message):
    if array["encoding"] == "COMPRESSED_ZLIB":
        with pytest.raises(MalformedMessage, match="encoding 01"):
            queries.decode_ids(message.encoded_short_ids)
        return
    ids = tuple(map(scid, array["array"]))
    assert queries.decode_ids(message.encoded_short_ids) == ids
    assert queries.encode_ids(ids) == message.encoded_short_ids


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["msg"]["type"] + v["hex"][76:92])
def test_vectors_of_bolt_7(vector):
    raw, expected = bytes.fromhex(vector["hex"]), vector["msg"]
    message = codec.decode(raw)
    assert type(message).__name__ == expected["type"]
    assert message.chain_hash == bytes.fromhex(expected["chainHash"])
    assert codec.encode(message) == raw
    match message:
        case QueryChannelRange():
            wants = expected["tlvStream"]["records"]
            assert message.first_blocknum == expected["firstBlockNum"]
            assert message.number_of_blocks == expected["numberOfBlocks"]
            both = queries.WANT_TIMESTAMPS | queries.WANT_CHECKSUMS
            assert message.query_option == (both if wants else None)
        case ReplyChannelRange():
            check_range_reply(message, expected)
        case QueryShortChannelIds():
            decoded_ids(expected["shortChannelIds"], message)
            for record in expected["tlvStream"]["records"]:
                assert record["encoding"] == "COMPRESSED_ZLIB"
                with pytest.raises(MalformedMessage, match="encoding 01"):
                    queries.decode_flags(message.query_flags)


def check_range_reply(message, expected):
    assert message.first_blocknum == expected["firstBlockNum"]
    assert message.number_of_blocks == expected["numberOfBlocks"]
    assert message.sync_complete == expected["complete"]
    decoded_ids(expected["shortChannelIds"], message)
    if (times := expected.get("timestamps")) and times["encoding"] == "UNCOMPRESSED":
        flat = tuple(pair[f"timestamp{n}"] for pair in times["timestamps"] for n in (1, 2))
        assert queries.decode_timestamps(message.timestamps) == flat
    elif times:
        with pytest.raises(MalformedMessage, match="encoding 01"):
            queries.decode_timestamps(message.timestamps)
    if sums := expected.get("checksums"):
        flat = tuple(pair[f"checksum{n}"] for pair in sums["checksums"] for n in (1, 2))
        assert queries.decode_pairs(message.checksums) == flat


def test_flags_of_more_than_one_byte_are_bigsizes():
    assert queries.decode_flags(EncodedArray(0, b"\x01\xfd\x01\x00\x1f")) == [1, 256, 31]
    with pytest.raises(MalformedMessage):
        queries.decode_flags(EncodedArray(0, b"\xfd\x00\x01"))


@settings(max_examples=40, deadline=None)
@given(
    most=st.integers(1, 12),
    first=st.integers(0, 12),
    number=st.integers(1, 12),
    blocks=st.lists(st.integers(0, 12), min_size=1, max_size=40),
)
def test_replies_cover_the_range_in_order_whatever_the_chunking(most, first, number, blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "MAX_EXTENDED_IDS_PER_REPLY", most)
        graph = Graph(REGTEST)
        template = next(d for d in generate(1, 3, 3, signed=False)).announcement
        for index, block in enumerate(blocks):
            key = (block << 40 | index << 16).to_bytes(8, "big")
            graph.add_channel(template[:292] + key + template[300:], 1)
        replies = list(queries.answer_range(graph, QueryChannelRange(REGTEST, first, number, 3)))
    assert replies[0].first_blocknum == first
    assert replies[-1].first_blocknum + replies[-1].number_of_blocks == first + number
    assert [r.sync_complete for r in replies] == [0] * (len(replies) - 1) + [1]
    found = [i for r in replies for i in queries.decode_ids(r.encoded_short_ids)]
    assert found == graph.within(first, number)
    for before, after in pairwise(replies):
        assert before.first_blocknum <= after.first_blocknum
        assert after.first_blocknum <= before.first_blocknum + before.number_of_blocks
    for reply in replies:
        ids = queries.decode_ids(reply.encoded_short_ids)
        assert len(ids) <= most
        inside = range(reply.first_blocknum, reply.first_blocknum + reply.number_of_blocks)
        assert all(gossip.block_height(i) in inside for i in ids)
        assert len(queries.decode_timestamps(reply.timestamps)) == 2 * len(ids)
        assert len(queries.decode_pairs(reply.checksums)) == 2 * len(ids)


def test_a_full_reply_fits_into_a_message():
    graph = Graph(REGTEST)
    template = next(d for d in generate(1, 3, 3, signed=False)).announcement
    for index in range(9000):
        graph.add_channel(template[:292] + (5 << 40 | index).to_bytes(8, "big") + template[300:], 1)
    for option in (None, 1, 2, 3):
        replies = list(queries.answer_range(graph, QueryChannelRange(REGTEST, 0, 100, option)))
        assert len(replies) == (2 if option is None else 4)
        assert all(len(codec.encode(reply)) <= 65_535 for reply in replies)


def test_timestamps_and_checksums_only_when_asked(graph):
    plain = next(queries.answer_range(graph, QueryChannelRange(REGTEST, 0, 2**32 - 1)))
    assert plain.timestamps is None
    assert plain.checksums is None
    reply = next(queries.answer_range(graph, QueryChannelRange(REGTEST, 0, 2**32 - 1, 3)))
    times, sums = queries.decode_timestamps(reply.timestamps), queries.decode_pairs(reply.checksums)
    for index, channel in enumerate(graph.channels[i] for i in queries.decode_ids(reply.encoded_short_ids)):
        for direction in (0, 1):
            raw = channel.update(direction)
            assert times[2 * index + direction] == gossip.update_timestamp(raw)
            assert sums[2 * index + direction] == gossip.update_checksum(raw)


def test_ids_asked_twice_are_answered_once_and_nodes_once_each(graph):
    ids = sorted(graph.channels)[:10]
    twice = QueryShortChannelIds(REGTEST, queries.encode_ids(ids + ids + [1]))
    answers = list(queries.answer_ids(graph, twice))
    assert codec.decode(answers[-1]) == ReplyShortChannelIdsEnd(REGTEST, 1)
    assert len(set(answers)) == len(answers)
    nodes = {n for i in ids for n in (graph.channels[i].node_id_1, graph.channels[i].node_id_2)}
    assert len(answers) == 3 * len(ids) + len(nodes) + 1


def test_flags_choose_what_is_sent(graph):
    ids = sorted(graph.channels)[:5]
    flags = EncodedArray(0, bytes((1, 2, 4, 8, 16)))
    answers = list(queries.answer_ids(graph, QueryShortChannelIds(REGTEST, queries.encode_ids(ids), flags)))
    channels = [graph.channels[i] for i in ids]
    assert answers[:3] == [channels[0].announcement, channels[1].update_1, channels[2].update_2]
    assert gossip.node_id(answers[3]) == channels[3].node_id_1
    assert gossip.node_id(answers[4]) == channels[4].node_id_2


@pytest.mark.parametrize(
    "query",
    [
        QueryShortChannelIds(REGTEST, b""),
        QueryShortChannelIds(REGTEST, b"\x01" + bytes(8)),
        QueryShortChannelIds(REGTEST, b"\x00" + bytes(9)),
        QueryShortChannelIds(REGTEST, b"\x00" + bytes(8), EncodedArray(0, b"\x01\x01")),
        QueryShortChannelIds(REGTEST, b"\x00" + bytes(8), EncodedArray(1, b"\x01")),
    ],
)
def test_a_bad_query_is_refused_at_once(graph, query):
    with pytest.raises(MalformedMessage):
        queries.answer_ids(graph, query)


def test_queries_about_another_chain_find_nothing(graph):
    ids = queries.encode_ids(sorted(graph.channels))
    answers = list(queries.answer_ids(graph, QueryShortChannelIds(OTHER_CHAIN, ids)))
    assert [codec.decode(a) for a in answers] == [ReplyShortChannelIdsEnd(OTHER_CHAIN, 0)]
    replies = list(queries.answer_range(graph, QueryChannelRange(OTHER_CHAIN, 0, 2**32 - 1)))
    assert replies == [ReplyChannelRange(OTHER_CHAIN, 0, 2**32 - 1, 1, b"\0")]
    assert list(queries.matching(graph, GossipTimestampFilter(OTHER_CHAIN, 0, 2**32 - 1))) == []


def test_spent_channels_are_served_nowhere(graph):
    gone = sorted(graph.channels)[4]
    channel = graph.channels[gone]
    graph.mark_spent(gone, 1)
    everything = GossipTimestampFilter(REGTEST, 0, 2**32 - 1)
    replies = queries.answer_range(graph, QueryChannelRange(REGTEST, 0, 2**32 - 1))
    assert gone not in [i for r in replies for i in queries.decode_ids(r.encoded_short_ids)]
    assert channel.announcement not in list(queries.matching(graph, everything))
    asked = QueryShortChannelIds(REGTEST, queries.encode_ids([gone]))
    assert len(list(queries.answer_ids(graph, asked))) == 1


def test_the_backlog_is_in_order_and_inside_the_filter(graph, pen):
    first = pen.now_s - 6 * 24 * 3600
    wanted = GossipTimestampFilter(REGTEST, first, 3 * 24 * 3600)
    inside = range(first, first + 3 * 24 * 3600)
    seen, nodes = set(), False
    for raw in queries.matching(graph, wanted):
        match gossip.check_size(raw):
            case gossip.CHANNEL_ANNOUNCEMENT:
                assert not nodes
                seen.add(gossip.channel_fields(raw).short_channel_id)
            case gossip.CHANNEL_UPDATE:
                assert gossip.update_timestamp(raw) in inside
                assert gossip.update_fields(raw).short_channel_id in seen
            case gossip.NODE_ANNOUNCEMENT:
                nodes = True
                assert gossip.node_timestamp(raw) in inside
    expected = {i for i, c in graph.channels.items() if c.timestamp(0) in inside or c.timestamp(1) in inside}
    assert seen == expected
    assert nodes


def test_from_now_on_costs_no_walk_through_the_graph(graph, pen):
    """A filter that begins later than all we have is what nearly every peer sends."""
    newest = max(channel.timestamp(direction) for channel in graph.channels.values() for direction in (0, 1))
    newest = max(
        newest, *(gossip.node_timestamp(n.announcement) for n in graph.nodes.values() if n.announcement)
    )
    assert int.from_bytes(graph.newest, "big") == newest
    assert list(queries.matching(graph, GossipTimestampFilter(REGTEST, newest, 1)))
    graph.after = None  # whoever looks falls over it
    assert list(queries.matching(graph, GossipTimestampFilter(REGTEST, newest + 1, 2**32 - newest - 2))) == []


def test_an_announcement_without_updates_is_not_streamed(pen):
    graph = Graph(REGTEST)
    graph.add_channel(pen.channel(5 << 40, "a", "b"), 1)
    assert list(queries.matching(graph, GossipTimestampFilter(REGTEST, 0, 2**32 - 1))) == []


def test_the_backlog_survives_changes_of_the_graph(graph):
    stream = queries.matching(graph, GossipTimestampFilter(REGTEST, 0, 2**32 - 1))
    taken = [next(stream) for _ in range(10)]
    for short_channel_id in sorted(graph.channels)[:60]:
        graph.remove_channel(short_channel_id)
    assert len(set(taken + list(stream))) > len(graph.channels) * 3
