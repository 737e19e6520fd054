"""The generated graph has the real one's shape, and comes out the same for the same seed."""

import numpy as np
import pytest

from lnsim.graph_generator import CHANNELS, NODES, TIMESTAMP, generate, message_of, node_secret, shape
from node.crypto.keys import public_key
from node.gossip.graph import ChannelAdded, ChannelUpdated, Graph, NodeAnnounced
from node.gossip.validation import Verdict, check


def test_the_full_size_has_the_shape_of_the_real_graph():
    drawn = shape(1, CHANNELS, NODES)
    degrees = np.bincount(np.concatenate([drawn.node_1, drawn.node_2]), minlength=NODES)
    assert len(drawn.capacity_sat) == CHANNELS
    assert degrees.min() == 1
    assert np.median(degrees) == 1
    assert degrees.mean() == pytest.approx(5.9, abs=0.05)
    assert 100 <= (degrees >= 100).sum() <= 150
    assert 4 <= (degrees >= 1000).sum() <= 9
    pairs = np.unique(np.sort(np.column_stack((drawn.node_1, drawn.node_2)), axis=1), axis=0)
    assert 0.85 < len(pairs) / CHANNELS < 0.98  # some channels are parallel
    assert (drawn.node_1 != drawn.node_2).all()
    assert len(np.unique(drawn.short_channel_id)) == CHANNELS
    assert 500_000 < np.median(drawn.capacity_sat) < 2_500_000


@pytest.mark.parametrize(("channels", "nodes"), [(1, 2), (9, 10), (30, 4), (200, 60)])
def test_any_size_is_connected(channels, nodes):
    drawn = shape(3, channels, nodes)
    reached, edges = {0}, set(zip(drawn.node_1.tolist(), drawn.node_2.tolist(), strict=True))
    while more := {b for a, b in edges if a in reached} | {a for a, b in edges if b in reached}:
        if more <= reached:
            break
        reached |= more
    assert len(drawn.node_1) == channels
    assert reached == set(range(nodes))


def test_messages_are_valid_and_in_an_order_that_a_graph_takes(tmp_path):
    deltas = list(generate(2, channels=12, nodes=6, cache=tmp_path))
    graph = Graph(bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"))
    for delta in deltas:
        assert check(graph, message_of(delta), TIMESTAMP) is Verdict.ACCEPTED
        assert graph.apply(delta)
    kinds = [type(delta) for delta in deltas]
    assert kinds == [ChannelAdded, ChannelUpdated, ChannelUpdated] * 12 + [NodeAnnounced] * 6
    assert public_key(node_secret(2, 5)) in graph.nodes
    assert list(generate(2, channels=12, nodes=6, cache=tmp_path)) == deltas
    assert list(generate(2, channels=12, nodes=6)) == deltas
    assert list(generate(4, channels=12, nodes=6)) != deltas


def test_unsigned_messages_differ_only_in_what_nobody_verifies():
    signed, unsigned = (list(generate(2, channels=12, nodes=6, signed=s)) for s in (True, False))
    for one, other in zip(signed, unsigned, strict=True):
        if isinstance(one, ChannelUpdated):
            assert one.update[66:] == other.update[66:]
        if isinstance(one, ChannelAdded):
            assert one.announcement[258:366] == other.announcement[258:366]
            assert one.capacity_sat == other.capacity_sat
