"""Every origin is answered exactly once, whatever order things happen in."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.graph_generator import REGTEST
from node.gossip import dedupe
from node.gossip.dedupe import Aggregation, Answer, Pending
from node.gossip.graph import Graph
from node.gossip.validation import Verdict, check

SCID = 600_000 << 40 | 1 << 16


def test_one_question_for_all_who_send_the_same():
    table = Aggregation()
    assert table.submit(b"m", 1, 0) is Answer.FORWARD
    assert table.submit(b"m", 2, 0) is Answer.JOINED
    assert table.submit(b"m", 2, 0) is Answer.DONE
    assert table.submit(b"other", 2, 0) is Answer.FORWARD
    assert table.knows(b"m")
    assert not table.knows(b"unheard of")
    assert table.settle(b"m", True, 1) == {1, 2}
    assert table.knows(b"m")
    assert table.settle(b"m", True, 1) == frozenset()
    assert table.submit(b"m", 3, 2) is Answer.DONE
    # whoever sent it before it became part of the graph must not get it back
    assert table.origins(b"m") == {1, 2, 3}
    assert table.origins(b"m") == frozenset()


def test_the_change_of_the_graph_may_overtake_the_verdict():
    table = Aggregation()
    table.submit(b"m", 1, 0)
    assert table.origins(b"m") == {1}
    assert table.settle(b"m", True, 1) == {1}


def test_a_refused_message_may_come_again():
    table = Aggregation()
    table.submit(b"m", 1, 0)
    assert table.settle(b"m", False, 1) == {1}
    assert table.submit(b"m", 1, 2) is Answer.FORWARD


def test_an_overdue_verdict_releases_its_origins():
    table = Aggregation()
    table.submit(b"m", 1, 0)
    table.submit(b"n", 2, 30)
    assert table.expire(59) == ()
    assert table.expire(60) == ({1},)
    assert table.settle(b"m", True, 61) == frozenset()
    assert table.expire(1000) == ({2},)
    assert len(table) == 0


def test_an_accepted_message_that_never_becomes_part_of_the_graph_is_forgotten():
    table = Aggregation()
    table.submit(b"m", 1, 0)
    table.settle(b"m", True, 1)
    table.expire(1 + dedupe.ACCEPTED_FOR_S)
    assert table.submit(b"m", 2, 200) is Answer.FORWARD


def test_one_peer_fills_only_its_share(monkeypatch):
    monkeypatch.setattr(dedupe, "MAX_PER_ORIGIN", 3)
    table = Aggregation()
    answers = [table.submit(bytes((n,)), 1, 0) for n in range(5)]
    assert answers == [Answer.FORWARD] * 3 + [Answer.FULL] * 2
    assert table.submit(b"\x03", 2, 0) is Answer.FORWARD
    table.settle(b"\x00", False, 0)
    assert table.submit(b"\x04", 1, 0) is Answer.FORWARD


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(dedupe, "MAX_PROCESSING", 3)
    table = Aggregation()
    answers = [table.submit(bytes((n,)), n, 0) for n in range(4)]
    assert answers == [Answer.FORWARD] * 3 + [Answer.FULL]
    assert table.submit(b"\x00", 9, 0) is Answer.JOINED


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_submission_is_answered_exactly_once(rng: random.Random):
    table, submitted, answered, gone, now_s = Aggregation(), Counter(), Counter(), set(), 0.0
    for _ in range(rng.randrange(120)):
        now_s += rng.choice((0, 1, 25))
        raw, origin = bytes((rng.randrange(4),)), rng.randrange(5)
        match rng.randrange(6):
            case 0 | 1 | 2 if origin not in gone:
                submitted[origin] += 1
                if table.submit(raw, origin, now_s) in (Answer.DONE, Answer.FULL):
                    answered[origin] += 1
            case 3:
                answered.update(table.settle(raw, rng.random() < 0.5, now_s))
            case 4 if rng.random() < 0.1:
                table.leave(origin)
                gone.add(origin)
            case 5:
                for origins in table.expire(now_s):
                    answered.update(origins)
    for origins in table.expire(now_s + 1000):
        answered.update(origins)
    assert len(table) == 0
    for origin in set(range(5)) - gone:
        assert answered[origin] == submitted[origin]
    for origin in gone:
        assert answered[origin] <= submitted[origin]


@pytest.fixture
def awaited(pen):
    pending = Pending()
    pending.expect(pen.channel(SCID, "a", "b"), 0)
    return pending


def test_an_update_waits_for_its_channel(pen, awaited):
    graph, (one, _) = Graph(REGTEST), pen.ordered("a", "b")
    update, node = pen.update(SCID, one, 0), pen.announce("b")
    assert check(graph, update, pen.now_s) is Verdict.UNKNOWN_CHANNEL
    assert awaited.hold(graph, update, 7, pen.now_s)
    assert awaited.hold(graph, node, 8, pen.now_s)
    released = awaited.release(pen.channel(SCID, "a", "b"))
    assert [(held.raw, held.origin) for held in released] == [(update, 7), (node, 8)]
    assert awaited.release(pen.channel(SCID, "a", "b")) == ()
    assert not awaited.hold(graph, update, 7, pen.now_s)
    assert not awaited.hold(graph, node, 8, pen.now_s)


def test_nobody_else_can_use_up_a_channels_places(pen, awaited):
    graph, (one, two) = Graph(REGTEST), pen.ordered("a", "b")
    for n in range(20):
        assert not awaited.hold(graph, pen.update(SCID, "stranger", 0, ppm=n), 1, pen.now_s)
        assert not awaited.hold(graph, pen.update(SCID, one, 1, ppm=n), 1, pen.now_s)
        assert not awaited.hold(graph, pen.announce("a", timestamp=1 + n, signer="stranger"), 1, pen.now_s)
    assert not awaited.hold(graph, pen.update(SCID + 1, one, 0), 1, pen.now_s)
    assert awaited.hold(graph, pen.update(SCID, two, 1), 1, pen.now_s)
    assert not awaited.hold(graph, pen.update(SCID, two, 1), 1, pen.now_s)
    held = [awaited.hold(graph, pen.update(SCID, two, 1, ppm=n), 1, pen.now_s) for n in range(20)]
    assert sum(held) == dedupe.MAX_HELD_PER_CHANNEL - 1


def test_what_is_held_too_long_is_released(pen, awaited):
    update = pen.update(SCID, pen.ordered("a", "b")[0], 0)
    awaited.hold(Graph(REGTEST), update, 7, pen.now_s)
    assert awaited.expire(59) == ()
    assert [held.origin for held in awaited.expire(60)] == [7]
    assert awaited.expire(1000) == ()


def test_awaited_channels_are_bounded(pen, monkeypatch):
    monkeypatch.setattr(dedupe, "MAX_AWAITED_CHANNELS", 2)
    pending = Pending()
    for n in range(3):
        pending.expect(pen.channel(SCID + n, "a", "b"), 0)
    one = pen.ordered("a", "b")[0]
    held = [pending.hold(Graph(REGTEST), pen.update(SCID + n, one, 0), 1, pen.now_s) for n in range(3)]
    assert held == [True, True, False]
