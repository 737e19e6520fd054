"""Two graphs converge through asker and answerer; a hostile answerer costs little and gets nowhere."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lnsim.graph_generator import REGTEST, generate
from node.errors import MalformedMessage, PeerFault
from node.gossip import queries, sync
from node.gossip import raw as gossip
from node.gossip.graph import ChannelAdded, Graph
from node.gossip.sync import Abandon, Finished, Phase, Received, Send, Start, Sync, Tick, step
from node.gossip.validation import Verdict, check
from node.wire import codec
from node.wire.bolt7 import (
    EncodedArray,
    GossipTimestampFilter,
    QueryChannelRange,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
)

NOW_S = 1_770_076_800
EVERYTHING = 0xFFFF_FFFF


def filled(deltas):
    graph = Graph(REGTEST)
    for delta in deltas:
        graph.apply(delta)
    return graph


def take(graph, raw, capacities):
    """What a frontend and its backend do with gossip, the chain being always right."""
    verdict = check(graph, raw, NOW_S)
    assert verdict in (Verdict.ACCEPTED, Verdict.DUPLICATE)
    match gossip.check_size(raw):
        case gossip.CHANNEL_ANNOUNCEMENT:
            graph.add_channel(raw, capacities[gossip.channel_fields(raw).short_channel_id])
        case gossip.CHANNEL_UPDATE:
            graph.add_update(raw)
        case _:
            graph.add_node(raw)


def run(asker, answerer, graph, capacities):
    """Pass messages, encoded, until the sync ends; returns how many queries it took."""
    state, effects = step(asker, Start(), graph, NOW_S)
    queue, sent = list(effects), 0
    while queue:
        effect = queue.pop(0)
        if not isinstance(effect, Send):
            assert effect == Finished()
            break
        sent += 1
        message = codec.decode(codec.encode(effect.message))
        match message:
            case QueryChannelRange():
                replies = map(codec.encode, queries.answer_range(answerer, message))
            case QueryShortChannelIds():
                replies = queries.answer_ids(answerer, message)
            case GossipTimestampFilter():
                continue
        for raw in replies:
            if codec.message_type(raw) <= gossip.CHANNEL_UPDATE:
                take(graph, raw, capacities)
            else:
                state, effects = step(state, Received(codec.decode(raw)), graph, NOW_S)
                queue += effects
    assert state.phase is Phase.DONE
    return sent


@settings(max_examples=15, deadline=None)
@given(
    rng=st.randoms(use_true_random=False),
    per_reply=st.integers(1, 40),
    per_query=st.integers(1, 40),
    extended=st.booleans(),
)
def test_two_graphs_converge_whatever_the_chunking(rng: random.Random, per_reply, per_query, extended):
    deltas = list(generate(11, channels=30, nodes=12))
    answerer = filled(deltas)
    ours = [d for d in deltas if isinstance(d, ChannelAdded) and rng.random() < 0.5]
    if extended:  # without timestamps, only whole channels can be found missing
        ours += [d for d in deltas if not isinstance(d, ChannelAdded) and rng.random() < 0.5]
    else:
        ids = [gossip.channel_fields(d.announcement).short_channel_id for d in ours]
        ours += [
            d
            for d in deltas
            if hasattr(d, "update") and gossip.update_fields(d.update).short_channel_id in ids
        ]
    graph = filled(ours)
    capacities = {i: c.capacity_sat for i, c in answerer.channels.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "MAX_EXTENDED_IDS_PER_REPLY", per_reply)
        patch.setattr(queries, "MAX_IDS_PER_REPLY", per_reply)
        patch.setattr(sync, "IDS_PER_QUERY", per_query)
        asker = Sync(chain_hash=REGTEST, extended=extended)
        run(asker, answerer, graph, capacities)
        assert graph.channels == answerer.channels
        again = run(asker, answerer, graph, capacities)
    assert again == 2  # the range and the filter: nothing was left to ask for


def test_newer_updates_are_asked_for_only_where_they_differ(pen):
    scid = 600_000 << 40
    one, two = pen.ordered("a", "b")
    ours, theirs = Graph(REGTEST), Graph(REGTEST)
    for graph in (ours, theirs):
        graph.add_channel(pen.channel(scid, "a", "b"), 10**6)
        graph.add_update(pen.update(scid, one, 0, timestamp=NOW_S - 100))
        graph.add_update(pen.update(scid, two, 1, timestamp=NOW_S - 100))
    theirs.add_update(pen.update(scid, one, 0, timestamp=NOW_S - 50))
    theirs.add_update(pen.update(scid, two, 1, timestamp=NOW_S - 50, ppm=7))
    state, _ = step(Sync(chain_hash=REGTEST, extended=True), Start(), ours, NOW_S)
    reply = next(queries.answer_range(theirs, QueryChannelRange(REGTEST, 0, EVERYTHING, 3)))
    _, (send,) = step(state, Received(reply), ours, NOW_S)
    assert queries.decode_flags(send.message.query_flags) == [queries.WANT_UPDATE_2]
    # no checksums: the time alone tells
    _, (send,) = step(state, Received(replace(reply, checksums=None)), ours, NOW_S)
    both = queries.WANT_UPDATE_1 | queries.WANT_UPDATE_2
    assert queries.decode_flags(send.message.query_flags) == [both]
    # a week later the renewal counts too, lest we prune a living channel
    _, (send,) = step(state, Received(reply), ours, NOW_S + 8 * 24 * 3600)
    assert queries.decode_flags(send.message.query_flags) == [both]


def test_channels_that_we_would_prune_at_once_are_not_asked_for(pen):
    state, _ = step(Sync(chain_hash=REGTEST, extended=True), Start(), Graph(REGTEST), NOW_S)
    old, fresh = NOW_S - 15 * 24 * 3600, NOW_S
    times = b"".join(t.to_bytes(4, "big") for t in (old, fresh, fresh, 0, 0, 0))
    reply = ReplyChannelRange(
        REGTEST, 0, EVERYTHING, 1, queries.encode_ids([1, 2, 3]), EncodedArray(0, times)
    )
    _, (send,) = step(state, Received(reply), Graph(REGTEST), NOW_S)
    assert queries.decode_ids(send.message.encoded_short_ids) == (2, 3)


def test_news_is_asked_for_from_before_the_sync_began():
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), Graph(REGTEST), NOW_S)
    empty = ReplyChannelRange(REGTEST, 0, EVERYTHING, 1, b"\0")
    _, (send, finished) = step(state, Received(empty), Graph(REGTEST), NOW_S + 50)
    assert send.message.first_timestamp == NOW_S - 600
    assert send.message.first_timestamp + send.message.timestamp_range == EVERYTHING
    assert finished == Finished()


def reply(first=0, number=EVERYTHING, complete=0, ids=(), **tlvs):
    return ReplyChannelRange(REGTEST, first, number, complete, queries.encode_ids(ids), **tlvs)


@pytest.mark.parametrize(
    "replies",
    [
        [reply(first=5, number=5)],
        [reply(first=0, number=9), reply(first=9, number=9), reply(first=8, number=9)],
        [reply(ids=(2, 2))],
        [reply(ids=(3, 2))],
        [reply(ids=(1, 2)), reply(ids=(2, 3))],
        [reply(number=5, ids=(6 << 40,))],
        [reply(ids=(1,), timestamps=EncodedArray(0, bytes(16)))],
        [reply(ids=(1,), checksums=bytes(16))],
    ],
)
def test_replies_against_the_rules_are_the_peers_fault(replies):
    graph = Graph(REGTEST)
    state, _ = step(Sync(chain_hash=REGTEST, extended=True), Start(), graph, NOW_S)
    for message in replies[:-1]:
        state, _ = step(state, Received(message), graph, NOW_S)
    with pytest.raises(PeerFault):
        step(state, Received(replies[-1]), graph, NOW_S)


def test_replies_about_blocks_before_the_range_are_the_peers_fault():
    graph = Graph(REGTEST)
    state, _ = step(Sync(chain_hash=REGTEST, extended=True, first_block=50), Start(), graph, NOW_S)
    with pytest.raises(PeerFault):
        step(state, Received(reply(first=0, number=50)), graph, NOW_S)


def test_replies_that_never_end_are_cut_off():
    graph = Graph(REGTEST)
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), graph, NOW_S)
    for _ in range(sync.MAX_REPLIES):
        state, effects = step(state, Received(reply()), graph, NOW_S)
        assert effects == ()
    with pytest.raises(PeerFault, match="never ends"):
        step(state, Received(reply()), graph, NOW_S)


def test_more_channels_than_there_can_be_are_refused():
    graph = Graph(REGTEST)
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), graph, NOW_S)
    for start in range(0, sync.MAX_IDS, 5_000):
        state, _ = step(state, Received(reply(ids=range(start, start + 5_000))), graph, NOW_S)
    assert len(state.wanted_ids) == sync.MAX_IDS * queries.ID_SIZE
    with pytest.raises(PeerFault, match="names more"):
        step(state, Received(reply(ids=(sync.MAX_IDS,))), graph, NOW_S)


def test_compressed_replies_are_malformed():
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), Graph(REGTEST), NOW_S)
    message = ReplyChannelRange(REGTEST, 0, EVERYTHING, 1, b"\x01anything")
    with pytest.raises(MalformedMessage):
        step(state, Received(message), Graph(REGTEST), NOW_S)


@pytest.mark.parametrize(
    "message",
    [
        ReplyShortChannelIdsEnd(REGTEST, 1),
        ReplyChannelRange(bytes(32), 0, EVERYTHING, 1, b"\0"),
    ],
)
def test_unsolicited_and_foreign_replies_change_nothing(message):
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), Graph(REGTEST), NOW_S)
    assert step(state, Received(message), Graph(REGTEST), NOW_S) == (state, ())


def test_one_query_is_in_flight_at_a_time():
    graph = Graph(REGTEST)
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), graph, NOW_S)
    assert step(state, Start(), graph, NOW_S) == (state, ())
    state, (second,) = step(state, Received(reply(complete=1, ids=range(2_500))), graph, NOW_S)
    assert len(queries.decode_ids(second.message.encoded_short_ids)) == sync.IDS_PER_QUERY
    assert second.message.query_flags is None
    sizes = []
    for _ in range(3):
        state, effects = step(state, Received(ReplyShortChannelIdsEnd(REGTEST, 1)), graph, NOW_S)
        sizes.append(len(effects))
    assert sizes == [1, 1, 2]
    assert state.phase is Phase.DONE
    assert step(state, Received(ReplyShortChannelIdsEnd(REGTEST, 1)), graph, NOW_S) == (state, ())


@pytest.mark.parametrize("replied", [False, True])
def test_silence_is_given_up_and_everything_asked_for_by_a_filter(replied):
    graph = Graph(REGTEST)
    state, _ = step(Sync(chain_hash=REGTEST, extended=False), Start(), graph, NOW_S)
    if replied:
        state, _ = step(state, Received(reply(complete=1, ids=(1,))), graph, NOW_S)
    assert step(state, Tick(), graph, NOW_S + 59) == (state, ())
    state, (everything, abandon) = step(state, Tick(), graph, NOW_S + 60)
    assert everything == Send(GossipTimestampFilter(REGTEST, 0, 0xFFFF_FFFF))
    assert isinstance(abandon, Abandon)
    assert state.phase is Phase.FAILED
    assert step(state, Tick(), graph, NOW_S + 600) == (state, ())
