"""The graph: what it keeps, what it drops, and that a snapshot in slices is the graph."""

import random

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.graph_generator import REGTEST, generate
from node.errors import MalformedMessage
from node.gossip import raw as gossip
from node.gossip.graph import (
    ChannelAdded,
    ChannelRemoved,
    ChannelSpent,
    ChannelUpdated,
    Graph,
    NodeAnnounced,
)
from node.wire import codec

SCID = 600_000 << 40 | 1 << 16


def contents(graph):
    return graph.channels, graph.nodes, graph.spent


def test_fields_at_offsets_agree_with_the_codec(deltas, pen):
    odd = pen.channel(SCID, "a", "b", features=b"\x01\x02\x03")
    for delta in [*deltas, ChannelAdded(odd, 1)]:
        raw = getattr(delta, "update", None) or delta.announcement
        message = codec.decode(raw)
        match gossip.check_size(raw):
            case gossip.CHANNEL_ANNOUNCEMENT:
                fields = gossip.channel_fields(raw)
                assert all(getattr(message, name) == value for name, value in fields._asdict().items())
                assert gossip.channel_features(raw) == message.features
            case gossip.CHANNEL_UPDATE:
                fields = gossip.update_fields(raw)
                assert all(getattr(message, name) == value for name, value in fields._asdict().items())
                assert gossip.update_timestamp(raw) == message.timestamp
                assert gossip.update_channel(raw) == message.short_channel_id.to_bytes(8, "big")
                assert gossip.update_direction(raw) == message.channel_flags & 1
            case gossip.NODE_ANNOUNCEMENT:
                assert gossip.node_timestamp(raw) == message.timestamp
                assert gossip.node_id(raw) == message.node_id
                assert gossip.node_features(raw) == message.features
                assert gossip.node_addresses(raw) == message.addresses


def test_every_cut_of_a_message_is_malformed(deltas):
    for kind in (ChannelAdded, ChannelUpdated, NodeAnnounced):
        delta = next(d for d in deltas if isinstance(d, kind))
        raw = delta.update if isinstance(delta, ChannelUpdated) else delta.announcement
        for end in range(len(raw)):
            with pytest.raises(MalformedMessage):
                gossip.check_size(raw[:end])
        assert gossip.check_size(raw + b"later fields")


def test_the_checksum_leaves_out_signature_and_timestamp(pen):
    early, late = pen.update(SCID, "a", 0, timestamp=5), pen.update(SCID, "a", 0, timestamp=6)
    assert early != late
    assert gossip.update_checksum(early) == gossip.update_checksum(late)
    assert gossip.update_checksum(early) != gossip.update_checksum(pen.update(SCID, "a", 0, ppm=101))
    # RFC 3720, appendix B.4: 32 bytes of zeroes
    assert google_crc32c.value(bytes(32)) == 0x8A9136AA


def test_only_newer_messages_of_known_channels_and_nodes_are_kept(pen):
    graph = Graph(REGTEST)
    one, _ = pen.ordered("a", "b")
    old, new = pen.update(SCID, one, 0, timestamp=10), pen.update(SCID, one, 0, timestamp=11)
    assert not graph.add_update(old)
    assert not graph.add_node(pen.announce("a"))
    assert graph.add_channel(pen.channel(SCID, "a", "b"), 5000)
    assert not graph.add_channel(pen.channel(SCID, "a", "b"), 5000)
    assert graph.add_update(new)
    assert not graph.add_update(old)
    assert not graph.add_update(new)
    assert graph.channels[SCID].update(0) == new
    assert graph.channels[SCID].timestamp(0) == 11
    assert graph.channels[SCID].timestamp(1) == 0
    assert graph.add_node(pen.announce("a", timestamp=3))
    assert graph.add_node(pen.announce("a", timestamp=4))
    assert not graph.add_node(pen.announce("a", timestamp=3))


def test_a_node_goes_with_its_last_channel(pen):
    graph = Graph(REGTEST)
    graph.add_channel(pen.channel(SCID, "a", "b"), 5000)
    graph.add_channel(pen.channel(SCID + 1, "a", "c"), 5000)
    graph.add_node(pen.announce("a"))
    assert graph.remove_channel(SCID)
    assert not graph.remove_channel(SCID)
    assert set(graph.nodes) == {pen.node("a"), pen.node("c")}
    assert graph.within(0, 1 << 24) == [SCID + 1]
    graph.remove_channel(SCID + 1)
    assert not graph.nodes


def test_the_older_update_decides_what_is_stale(pen):
    graph = Graph(REGTEST)
    one, two = pen.ordered("a", "b")
    for scid in range(SCID, SCID + 3):
        graph.add_channel(pen.channel(scid, "a", "b"), 5000)
    two_weeks_ago = pen.now_s - 14 * 24 * 3600
    graph.add_update(pen.update(SCID, one, 0, timestamp=two_weeks_ago - 1))
    graph.add_update(pen.update(SCID, two, 1, timestamp=pen.now_s))
    graph.add_update(pen.update(SCID + 1, one, 0, timestamp=two_weeks_ago))
    assert graph.stale(pen.now_s) == [SCID]


def test_a_spent_channel_is_buried_after_72_blocks(pen):
    graph = Graph(REGTEST)
    graph.add_channel(pen.channel(SCID, "a", "b"), 5000)
    assert graph.apply(ChannelSpent(SCID, 700_000))
    assert graph.buried(700_070) == []
    assert graph.buried(700_071) == [SCID]
    assert graph.apply(ChannelSpent(SCID, None))
    assert graph.buried(800_000) == []
    assert not graph.apply(ChannelSpent(SCID, None))


def test_ranges_are_whole_blocks_in_order(graph):
    ids = sorted(graph.channels)
    assert graph.within(0, 2**32 - 1) == ids
    middle = ids[60] >> 40
    assert graph.within(middle, 1) == [scid for scid in ids if scid >> 40 == middle]
    assert graph.within(0, middle) == [scid for scid in ids if scid >> 40 < middle]
    assert graph.after(ids[3], 2) == ids[4:6]


def test_a_snapshot_leads_to_the_same_graph_in_any_order_of_delivery(graph):
    graph.mark_spent(next(iter(graph.channels)), 9)
    copy = Graph(REGTEST)
    for delta in graph.snapshot(slice_size=7):
        copy.apply(delta)
        copy.apply(delta)
    assert contents(copy) == contents(graph)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_snapshot_read_while_the_graph_changes_misses_nothing(rng: random.Random):
    """Slices of a snapshot, and deltas as they happen, in the order in which a link would carry them."""
    deltas = list(generate(3, channels=30, nodes=10, signed=False))
    graph, copy = Graph(REGTEST), Graph(REGTEST)
    split = rng.randrange(len(deltas))
    for delta in deltas[:split]:
        graph.apply(delta)
    snapshot, rest = graph.snapshot(slice_size=3), iter(deltas[split:])
    while True:
        for _ in range(rng.randrange(4)):
            if (delta := next(rest, None)) is not None:
                graph.apply(delta)
                copy.apply(delta)
        if rng.random() < 0.2 and graph.channels:
            removed = ChannelRemoved(rng.choice(sorted(graph.channels)))
            graph.apply(removed)
            copy.apply(removed)
        if (taken := next(snapshot, None)) is None:
            break
        copy.apply(taken)
    for delta in rest:
        graph.apply(delta)
        copy.apply(delta)
    assert contents(copy) == contents(graph)
