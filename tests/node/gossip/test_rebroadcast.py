"""Rebroadcast: staggered, filtered, never an echo, nothing copied per peer."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.graph_generator import REGTEST
from node.gossip import raw as gossip
from node.gossip import rebroadcast
from node.gossip.rebroadcast import Rebroadcast
from node.wire.bolt7 import GossipTimestampFilter

SCID = 600_000 << 40 | 1 << 16
EVERYTHING = GossipTimestampFilter(REGTEST, 0, 0xFFFF_FFFF)


def listening(*peers, wanted=EVERYTHING):
    log = Rebroadcast()
    for peer in peers:
        log.join(peer, 0, 0)
        log.set_filter(peer, wanted)
    return log


def sent(log, peer, now_s=0):
    return list(log.flush(peer, now_s).messages)


def test_an_announcement_waits_for_its_first_update(pen):
    log = listening(1)
    channel, update = pen.channel(SCID, "a", "b"), pen.update(SCID, "a", 0)
    log.add(channel)
    assert sent(log, 1) == []
    log.add(update)
    assert sent(log, 1) == [channel, update]
    log.add(pen.update(SCID, "b", 1))
    assert sent(log, 1) == [pen.update(SCID, "b", 1)]


def test_nothing_goes_back_to_who_sent_it(pen):
    log = listening(1, 2, 3)
    node = pen.announce("a")
    log.add(node, frozenset({1}))
    log.add_origin(node, 2)
    log.add_origin(pen.announce("a", timestamp=1), 3)
    assert [sent(log, peer) for peer in (1, 2, 3)] == [[], [], [node]]


def test_without_a_filter_only_our_own_goes_out(pen):
    log = listening()
    log.join(1, 0, 0)
    log.add(pen.announce("stranger"))
    log.add(pen.announce("own"), own=True)
    assert sent(log, 1) == [pen.announce("own")]


def test_a_filter_lets_through_its_times_and_our_own(pen):
    log = listening(1, wanted=GossipTimestampFilter(REGTEST, 100, 50))
    for name, timestamp in (("a", 99), ("b", 100), ("c", 149), ("d", 150)):
        log.add(pen.announce(name, timestamp=timestamp))
    log.add(pen.announce("own", timestamp=7), own=True)
    names = [pen.announce("b", timestamp=100), pen.announce("c", timestamp=149)]
    assert sent(log, 1) == [*names, pen.announce("own", timestamp=7)]


def test_a_new_filter_leaves_the_backlog_to_the_graph_but_not_our_own(pen):
    log = listening(1)
    log.add(pen.announce("a"))
    log.add(pen.announce("own"), own=True)
    log.set_filter(1, EVERYTHING)
    log.add(pen.announce("b"))
    assert sent(log, 1) == [pen.announce("own"), pen.announce("b")]


def test_only_the_newest_of_a_flush_is_sent(pen):
    log = listening(1, 2)
    log.add(pen.update(SCID, "a", 0, timestamp=5))
    assert len(sent(log, 2)) == 1
    log.add(pen.update(SCID, "b", 1, timestamp=5))
    log.add(pen.update(SCID, "a", 0, timestamp=6))
    assert sent(log, 1) == [pen.update(SCID, "b", 1, timestamp=5), pen.update(SCID, "a", 0, timestamp=6)]


def test_what_is_being_closed_is_not_relayed(pen):
    log = listening(1)
    log.add(pen.channel(SCID, "a", "b"))
    log.add(pen.update(SCID, "a", 0))
    log.add(pen.channel(SCID + 1, "a", "b"))
    log.forget(SCID)
    log.forget(SCID + 1)
    log.add(pen.update(SCID + 1, "a", 0))
    assert sent(log, 1) == [pen.update(SCID + 1, "a", 0)]


def test_flushes_are_an_interval_apart_and_staggered(pen):
    log = Rebroadcast(interval_s=60)
    log.join(1, 0, 10)
    log.join(2, 0, 40)
    assert log.due(9) == ()
    assert log.due(10) == (1,)
    log.flush(1, 10)
    assert log.due(69) == (2,)
    log.flush(2, 69)
    assert log.due(70) == (1,)
    log.flush(1, 1000)
    assert log.due(1029) == (2,)  # a late flush is not made up for
    log.leave(2)
    assert log.due(1030) == (1,)


def test_a_large_flush_comes_in_pieces(pen, monkeypatch):
    monkeypatch.setattr(rebroadcast, "MAX_PER_FLUSH", 2)
    log = listening(1)
    messages = [pen.announce(f"{n}") for n in range(5)]
    for message in messages:
        log.add(message)
    flushes = [log.flush(1, 0) for _ in range(3)]
    assert [m for f in flushes for m in f.messages] == messages
    assert [f.more for f in flushes] == [True, True, False]


def test_records_are_dropped_once_everyone_has_passed(pen):
    log = listening(1, 2)
    for n in range(4):
        log.add(pen.announce(f"{n}"))
    sent(log, 1)
    log.due(0)
    assert len(log) == 4
    sent(log, 2)
    log.due(1000)
    assert len(log) == 0
    log.add(pen.announce("0", timestamp=pen.now_s + 1))
    assert sent(log, 1) == [pen.announce("0", timestamp=pen.now_s + 1)]


def test_the_log_is_bounded_even_for_a_peer_that_never_takes_anything(pen, monkeypatch):
    monkeypatch.setattr(rebroadcast, "MAX_RECORDS", 10)
    monkeypatch.setattr(rebroadcast, "DROPPED_AT_ONCE", 3)
    monkeypatch.setattr(rebroadcast, "MAX_WAITING_ANNOUNCEMENTS", 3)
    log = listening(1)
    messages = [pen.announce(f"{n}") for n in range(25)]
    for message in messages:
        log.add(message)
        assert len(log) <= 10
    taken = sent(log, 1)
    assert taken == messages[-len(taken) :]
    for n in range(5):
        log.add(pen.channel(SCID + n, "a", "b"))
    log.add(pen.update(SCID, "a", 0))
    log.add(pen.update(SCID + 4, "a", 0))
    kinds = [gossip.check_size(raw) for raw in sent(log, 1)]
    assert kinds == [258, 256, 258]


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_echo_no_repeat_no_gap(rng: random.Random):
    """Against a model that keeps a queue per peer."""
    log, peers, queues, taken = Rebroadcast(), {}, {}, {}
    template = bytes(2 + 64) + bytes(2)
    for serial in range(1, rng.randrange(2, 120)):
        match rng.randrange(5):
            case 0 if len(peers) < 6:
                log.join(serial, 0, 0)
                log.set_filter(serial, EVERYTHING)
                peers[serial], queues[serial], taken[serial] = True, [], []
            case 1 | 2:
                origins = frozenset(rng.sample(sorted(peers), rng.randrange(len(peers) + 1)))
                node_id = bytes((2,)) + serial.to_bytes(32, "big")
                raw = b"\x01\x01" + template[2:] + serial.to_bytes(4, "big") + node_id + bytes(37)
                log.add(raw, origins)
                for peer in peers:
                    if peer not in origins:
                        queues[peer].append(raw)
            case 3 if peers:
                peer = rng.choice(sorted(peers))
                taken[peer] += sent(log, peer)
                assert taken[peer] == queues[peer]
            case 4:
                log.due(serial * 100)
    for peer in peers:
        taken[peer] += sent(log, peer)
        assert taken[peer] == queues[peer]
    log.due(10**6)
    assert len(log) == 0
