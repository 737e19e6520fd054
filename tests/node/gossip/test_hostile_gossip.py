"""Gossip that strangers made up: a verdict, an answer, or malformed; never another exception."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.gossip import raw as gossip
from node.gossip.dedupe import Aggregation, Pending
from node.gossip.graph import Graph
from node.gossip.queries import (
    answer_ids,
    answer_range,
    decode_flags,
    decode_ids,
    decode_timestamps,
    matching,
)
from node.gossip.validation import Verdict, check
from node.wire.bolt7 import EncodedArray, GossipTimestampFilter, QueryChannelRange, QueryShortChannelIds
from node.wire.codec import decode

CHAIN, NOW_S = b"\6" * 32, 1_700_000_000
U32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**32 - 1]))
TYPED = st.builds(
    lambda kind, body: kind + body,
    st.sampled_from([b"\1\0", b"\1\1", b"\1\2"]),
    st.one_of(
        st.binary(max_size=60),
        st.binary(min_size=130, max_size=150),
        st.binary(min_size=425, max_size=440),
        st.builds(lambda head, rest: head + CHAIN + rest, st.binary(min_size=64, max_size=64), st.binary(max_size=80)),
        st.builds(lambda head, rest: head + bytes(2) + CHAIN + rest, st.binary(min_size=256, max_size=256), st.binary(max_size=180)),
    ),
)  # fmt: skip


@given(st.one_of(TYPED, st.binary(max_size=40)))
def test_any_bytes_get_a_verdict(raw):
    graph, pending = Graph(CHAIN), Pending()
    verdict = check(graph, raw, NOW_S)
    assert verdict in Verdict
    if verdict is Verdict.UNKNOWN_CHANNEL:
        assert not pending.hold(graph, raw, 1, NOW_S)
    Aggregation().submit(raw, 1, NOW_S)
    with suppress(MalformedMessage):
        gossip.check_size(raw)
        decode(raw)


@given(st.binary(max_size=80), st.integers(0, 255))
def test_any_encoded_array_is_read_or_malformed(data, encoding):
    array = EncodedArray(encoding, data)
    for read, value in ((decode_ids, data), (decode_flags, array), (decode_timestamps, array)):
        with suppress(MalformedMessage):
            read(value)


@given(U32, U32, st.one_of(st.none(), st.integers(0, 2**64 - 1)), st.binary(max_size=60), st.booleans())
def test_any_query_of_an_empty_graph_gets_a_bounded_answer(first, number, option, ids, ours):
    graph, chain = Graph(CHAIN), CHAIN if ours else bytes(32)
    assert len(list(answer_range(graph, QueryChannelRange(chain, first, number, query_option=option)))) == 1
    assert not list(matching(graph, GossipTimestampFilter(chain, first, number)))
    with suppress(MalformedMessage):
        flags = EncodedArray(0, ids)
        assert len(list(answer_ids(graph, QueryShortChannelIds(chain, b"\0" + ids, query_flags=flags)))) == 1
