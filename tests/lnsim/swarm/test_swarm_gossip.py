"""Light peers take in the whole graph, storm a node with updates, and hear of each other's."""

import pytest

from lnsim.graph_generator import REGTEST, TIMESTAMP, generate, shape
from lnsim.swarm import pings
from lnsim.swarm import sync as syncing
from lnsim.swarm.stamp import stamp, stamped_s
from lnsim.swarm.storm import Mixture, Storm
from lnsim.swarm.sync import EVER, Ids, Sync
from lnsim.swarm.updates import Updates
from node.errors import Refused
from node.gossip import raw as gossip
from node.gossip.graph import Graph
from node.gossip.validation import Verdict, check
from node.link.messages import Limits
from node.wire import bolt1
from node.wire.bolt7 import (
    GossipTimestampFilter,
    QueryChannelRange,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
)
from node.wire.codec import decode, encode

FAST = 10_000.0
SEED = 7
SMALL = {"channels": 6, "nodes": 4}
DRAWN = shape(SEED, **SMALL)
MESSAGES = 6 + 12 + 4
SOON = Limits(flush_interval_s=0.02)


@pytest.fixture(scope="session")
def deltas():
    return list(generate(SEED, **SMALL))


@pytest.fixture(scope="session")
def graph(deltas):
    built = Graph(REGTEST)
    for delta in deltas:
        built.apply(delta)
    return built


# the whole graph


async def test_everybody_takes_in_the_whole_graph(site, deltas, monkeypatch):
    monkeypatch.setattr(syncing, "QUIET_S", 0.2)
    await site.open(deltas)
    swarm = site.swarm(count=10)
    await swarm.connect(per_s=FAST)

    result = await swarm.sync(queries=0.5)

    assert result["complete"] == 10
    assert result["incomplete"] == 0
    assert result["messages"] == 10 * MESSAGES == site.figures.counts["sync.messages"]
    assert result["bytes"] == site.figures.counts["sync.bytes"]
    assert len(site.figures.observed["sync"]) == 10


async def test_a_filter_is_through_after_as_many_messages_as_there_are(site, deltas):
    await site.open(deltas)
    swarm = site.swarm(count=3)
    await swarm.connect(per_s=FAST)

    assert (await swarm.sync(queries=0, messages=MESSAGES))["complete"] == 3
    # and again, since nothing of it lasts
    assert (await swarm.sync(queries=0, messages=MESSAGES))["complete"] == 3


async def test_who_loses_its_connection_or_hears_nothing_stays_incomplete(site):
    node = await site.node()
    swarm = site.swarm(node.address, count=2)
    await swarm.connect(per_s=FAST)

    assert await swarm.sync(queries=1, timeout_s=0.1) == {
        "complete": 0,
        "incomplete": 2,
        "messages": 0,
        "bytes": 0,
    }
    assert site.figures.counts["sync.incomplete"] == 2


async def test_nobody_is_late_with_a_pong_while_it_takes_in_the_graph(site, monkeypatch):
    monkeypatch.setattr(pings, "PONG_TIMEOUT_S", 0.05)
    node = await site.node()
    swarm = site.swarm(node.address, count=1, ping_interval_s=0.1)
    await swarm.connect(per_s=FAST)

    assert (await swarm.sync(queries=1, timeout_s=0.5))["incomplete"] == 1
    assert site.figures.counts["ping.late"] == 0
    await site.figures.reach("ping.late", 1)


def test_ids_are_asked_for_as_they_came_one_reply_after_the_other():
    ids = Ids()
    sync = Sync(REGTEST, 0.0, None, ids)
    assert [decode(raw) for raw in sync.start()] == [QueryChannelRange(REGTEST, 0, EVER)]

    first, second = b"\0" + bytes(16), b"\0" + bytes(24)
    assert sync.receive(encode(ReplyChannelRange(REGTEST, 0, 700_000, 0, first)), 1.0) is None
    asked = sync.receive(encode(ReplyChannelRange(REGTEST, 700_000, EVER - 700_000, 1, second)), 2.0)
    assert decode(asked) == QueryShortChannelIds(REGTEST, first)
    end = encode(ReplyShortChannelIdsEnd(REGTEST, 1))
    assert decode(sync.receive(end, 3.0)) == QueryShortChannelIds(REGTEST, second)
    assert not sync.complete
    assert sync.receive(end, 4.0) is None
    assert sync.complete
    assert sync.last_s == 4.0

    copy = bytes(bytearray(first))
    assert ids.shared(copy) is not copy  # the next peer shares what this one was told


def test_a_graph_without_channels_is_complete_at_once():
    sync = Sync(REGTEST, 0.0, None, Ids())
    sync.receive(encode(ReplyChannelRange(REGTEST, 0, EVER, 1, b"\0")), 1.0)
    assert sync.complete


def test_a_filter_is_through_once_a_query_behind_it_was_answered_and_it_is_quiet(deltas):
    sync = Sync(REGTEST, 0.0, None, None)
    wanted, marker = map(decode, sync.start())
    assert wanted == GossipTimestampFilter(REGTEST, 0, EVER)
    sync.receive(deltas[0].announcement, 100.0)
    sync.check(200.0)
    assert not sync.complete  # the node is slow
    sync.receive(
        encode(ReplyChannelRange(REGTEST, marker.first_blocknum, marker.number_of_blocks, 1, b"\0")), 200.0
    )
    sync.receive(deltas[0].announcement, 201.0)
    sync.check(201.0 + syncing.QUIET_S - 0.1)
    assert not sync.complete
    sync.check(201.0 + syncing.QUIET_S)
    assert sync.complete
    assert (sync.last_s, sync.messages, sync.bytes) == (201.0, 2, 2 * len(deltas[0].announcement))


# updates


def test_every_update_is_fresh_and_signed_by_the_channel_s_node(graph):
    updates = Updates(DRAWN, SEED, TIMESTAMP)
    raws = [updates.fresh(TIMESTAMP + number) for number in range(36)]
    for raw in raws[:12]:
        assert check(graph, raw, TIMESTAMP) is Verdict.ACCEPTED

    about = [(gossip.update_channel(raw), gossip.update_direction(raw)) for raw in raws]
    assert about[:12] == about[12:24] == about[24:]
    assert len(set(about)) == 12
    assert [gossip.update_timestamp(raw) - TIMESTAMP for raw in raws] == [0] * 12 + [1] * 12 + [2] * 12
    again = Updates(DRAWN, SEED, TIMESTAMP)
    assert [again.fresh(TIMESTAMP + number) for number in range(36)] == raws


def test_processes_share_a_graph():
    parts = [Updates(DRAWN, SEED, TIMESTAMP, part, 3) for part in range(3)]
    raws = [part.fresh(0.0) for part in parts for _ in range(4)]
    assert len({(gossip.update_channel(raw), gossip.update_direction(raw)) for raw in raws}) == 12


def test_the_time_in_an_update_survives(deltas):
    raw = Updates(DRAWN, SEED, TIMESTAMP).fresh(TIMESTAMP + 0.25)
    assert stamped_s(raw) == TIMESTAMP + 0.25
    assert stamped_s(raw[: gossip.CHANNEL_UPDATE_SIZE]) is None
    assert stamped_s(deltas[1].update) is None
    assert stamped_s(bytes(len(raw) - len(stamp(0))) + stamp(0)) is None


def test_a_storm_has_its_shares(graph, site):
    storm = Storm(Updates(DRAWN, SEED, TIMESTAMP), Mixture(duplicate=0.3, invalid=0.2), site.runtime.random)
    raws = [storm.next(float(number)) for number in range(1_000)]

    assert storm.fresh + storm.duplicate + storm.invalid == 1_000
    assert 250 < storm.duplicate < 350
    assert 150 < storm.invalid < 250
    assert len(set(raws)) == storm.fresh + storm.invalid
    verdicts = [check(graph, raw, TIMESTAMP + 100) for raw in set(raws)]
    assert verdicts.count(Verdict.INVALID_SIGNATURE) == storm.invalid
    assert verdicts.count(Verdict.ACCEPTED) == storm.fresh


async def test_what_one_swarm_sends_another_hears(site, deltas):
    frontend = await site.open(deltas, SOON)
    listeners, senders = site.swarm(count=4, listens=True), site.swarm(count=3)
    await listeners.connect(per_s=FAST)
    await senders.connect(per_s=FAST)

    sent = await senders.storm(per_s=200, duration_s=0.3, graph=SMALL, seed=SEED)
    await site.figures.reach("gossip.propagation", 4 * 12)  # of each direction at least one

    await site.figures.reach("swarm.warnings", sent["invalid"])

    assert sum(sent.values()) == 60
    assert sent["held"] == 0
    assert all(0 <= took_s < 2 for took_s in site.figures.observed["gossip.propagation"])
    verdicts = frontend.gossip.verdicts
    assert verdicts[Verdict.INVALID_SIGNATURE] == sent["invalid"] == site.figures.counts["swarm.warnings"]
    assert verdicts.keys() <= {Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.STALE, Verdict.INVALID_SIGNATURE}

    # the next storm is later by at least a second of the updates' own time
    before = {raw[106:110] for channel in site.office.graph.channels.values() for raw in (channel.update_1,)}
    await senders.storm(per_s=400, duration_s=0.05, graph=SMALL, seed=SEED, duplicate=0, invalid=0)
    await site.figures.reach("storm.fresh", sent["fresh"] + 20)
    await site.figures.reach("gossip.propagation", 4 * 24)
    after = {raw[106:110] for channel in site.office.graph.channels.values() for raw in (channel.update_1,)}
    assert min(after) > max(before)


async def test_a_storm_without_peers_is_held(site, deltas):
    await site.open(deltas)
    sent = await site.swarm().storm(per_s=100, duration_s=0.1, graph=SMALL, seed=SEED)
    assert sent == {"fresh": 0, "duplicate": 0, "invalid": 0, "held": 10}
    with pytest.raises(Refused, match="no storm without a background graph"):
        await site.swarm().storm(per_s=100, duration_s=0.1, graph={}, seed=SEED)


async def test_listeners_ask_for_what_is_new_when_they_come(site):
    node = await site.node()
    await site.swarm(node.address, count=1, listens=True).connect(per_s=FAST)

    assert isinstance(decode(await node.hears()), bolt1.Init)
    wanted = decode(await node.hears())
    assert wanted.timestamp_range == EVER
    assert 0 <= site.runtime.now() - wanted.first_timestamp < 10
