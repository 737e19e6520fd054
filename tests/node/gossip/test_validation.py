"""Each verdict, and that whatever order messages come in, a valid one is never shut out by another."""

import pytest

from lnsim.graph_generator import REGTEST
from node.bitcoin.scripts import funding_script, p2wsh
from node.gossip import raw as gossip
from node.gossip.graph import Graph
from node.gossip.topology import Topology
from node.gossip.validation import (
    MAX_ASSUMED_CHANNELS,
    FundingOutput,
    Verdict,
    admit,
    assumed_funding,
    check,
)

SCID = 600_000 << 40 | 1 << 16
CAPACITY_SAT = 2_000_000
OTHER_CHAIN = bytes(32)
DAY_S = 24 * 3600
TOR, IPV4 = b"\x04" + bytes(37), b"\x01" + bytes(6)
HOSTNAME = b"\x05\x01a\x26\x07"


@pytest.fixture
def known(pen):
    graph = Graph(REGTEST)
    graph.add_channel(pen.channel(SCID, "a", "b"), CAPACITY_SAT)
    return graph


@pytest.fixture
def sides(pen):
    """Who sends in direction 0 and who in 1."""
    return pen.ordered("a", "b")


def test_everything_generated_is_accepted(deltas, pen):
    graph = Graph(REGTEST)
    for delta in deltas:
        raw = getattr(delta, "update", None) or delta.announcement
        assert check(graph, raw, pen.now_s) is Verdict.ACCEPTED
        graph.apply(delta)
        assert check(graph, raw, pen.now_s) is Verdict.DUPLICATE


@pytest.mark.parametrize("forger", range(4))
def test_a_channel_needs_all_four_signatures(pen, forger):
    raw = pen.channel(SCID, "a", "b", forger=forger)
    assert check(Graph(REGTEST), raw, pen.now_s) is Verdict.INVALID_SIGNATURE


def test_a_changed_byte_anywhere_is_never_accepted(pen):
    raw = pen.channel(SCID, "a", "b", features=b"\x01")
    for at in range(2, len(raw), 7):
        changed = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
        assert check(Graph(REGTEST), changed, pen.now_s) is not Verdict.ACCEPTED


def test_channel_announcements_out_of_form(pen):
    graph = Graph(REGTEST)
    raw = pen.channel(SCID, "a", "b")
    swapped = raw[:300] + raw[333:366] + raw[300:333] + raw[366:]
    assert check(graph, swapped, pen.now_s) is Verdict.MALFORMED
    twice = raw[:333] + raw[300:333] + raw[366:]
    assert check(graph, twice, pen.now_s) is Verdict.MALFORMED
    assert check(graph, raw[:-1], pen.now_s) is Verdict.MALFORMED
    assert check(graph, b"", pen.now_s) is Verdict.MALFORMED
    assert check(graph, b"\x00\x12" + raw, pen.now_s) is Verdict.MALFORMED
    assert check(graph, pen.channel(5, "a", "b"), pen.now_s) is Verdict.MALFORMED
    assert check(graph, pen.channel(SCID, "a", "b", chain=OTHER_CHAIN), pen.now_s) is Verdict.WRONG_CHAIN
    long = pen.channel(SCID, "a", "b", features=bytes(1000))
    assert check(graph, long, pen.now_s) is Verdict.UNSUITABLE


def test_updates_out_of_form(pen, known, sides):
    def verdict(**fields):
        return check(known, pen.update(SCID, sides[0], 0, **fields), pen.now_s)

    assert verdict() is Verdict.ACCEPTED
    assert verdict(extra=b"later fields") is Verdict.ACCEPTED
    assert verdict(extra=bytes(600)) is Verdict.UNSUITABLE
    assert verdict(timestamp=0) is Verdict.MALFORMED
    assert verdict(chain=OTHER_CHAIN) is Verdict.WRONG_CHAIN
    assert verdict(message_flags=3) is Verdict.PRIVATE
    assert verdict(timestamp=pen.now_s + 2 * DAY_S) is Verdict.TOO_FAR_IN_FUTURE
    assert verdict(timestamp=pen.now_s - 15 * DAY_S) is Verdict.STALE
    other_side = pen.update(SCID, sides[0], 1)
    assert check(known, other_side, pen.now_s) is Verdict.INVALID_SIGNATURE
    assert check(known, pen.update(SCID + 1, sides[0], 0), pen.now_s) is Verdict.UNKNOWN_CHANNEL


def test_an_update_is_compared_with_the_one_known(pen, known, sides):
    first = pen.update(SCID, sides[0], 0)
    known.add_update(first)
    resigned = first[:2] + bytes(64) + first[66:]
    assert check(known, resigned, pen.now_s) is Verdict.DUPLICATE
    assert check(known, pen.update(SCID, sides[0], 0, ppm=5), pen.now_s) is Verdict.STALE
    older = pen.update(SCID, sides[0], 0, timestamp=pen.now_s - 1)
    assert check(known, older, pen.now_s) is Verdict.STALE
    newer = pen.update(SCID, sides[0], 0, timestamp=pen.now_s + 1)
    assert check(known, newer, pen.now_s) is Verdict.ACCEPTED
    assert check(known, pen.update(SCID, sides[1], 1), pen.now_s) is Verdict.ACCEPTED


def test_only_a_disabling_update_of_a_spent_channel_counts(pen, known, sides):
    known.mark_spent(SCID, 700_000)
    assert check(known, pen.update(SCID, sides[0], 0), pen.now_s) is Verdict.SPENT
    assert check(known, pen.update(SCID, sides[0], 0, disabled=True), pen.now_s) is Verdict.ACCEPTED


def test_a_newer_announcement_of_a_known_node_passes(pen, known):
    known.add_node(pen.announce("a"))
    assert check(known, pen.announce("a"), pen.now_s) is Verdict.DUPLICATE
    assert check(known, pen.announce("a", extra=b"x"), pen.now_s) is Verdict.STALE
    assert check(known, pen.announce("a", timestamp=pen.now_s - 1), pen.now_s) is Verdict.STALE
    assert check(known, pen.announce("a", timestamp=pen.now_s + 1), pen.now_s) is Verdict.ACCEPTED


def test_node_announcements_out_of_form(pen, known):
    def verdict(**fields):
        return check(known, pen.announce("a", **fields), pen.now_s)

    assert verdict(timestamp=0) is Verdict.MALFORMED
    assert verdict(timestamp=pen.now_s + 2 * DAY_S) is Verdict.TOO_FAR_IN_FUTURE
    assert verdict(timestamp=5) is Verdict.ACCEPTED
    assert verdict(signer="b") is Verdict.INVALID_SIGNATURE
    assert verdict(extra=bytes(3000)) is Verdict.UNSUITABLE
    assert check(known, pen.announce("stranger"), pen.now_s) is Verdict.UNKNOWN_CHANNEL


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (IPV4 + TOR, Verdict.ACCEPTED),
        (IPV4 + b"\x63what comes is unknown", Verdict.ACCEPTED),
        (IPV4[:-1], Verdict.MALFORMED),
        (IPV4 + TOR[:-1], Verdict.MALFORMED),
        (HOSTNAME, Verdict.ACCEPTED),
        (HOSTNAME[:-1], Verdict.MALFORMED),
        (b"\x05", Verdict.MALFORMED),
        (HOSTNAME + HOSTNAME, Verdict.UNSUITABLE),
    ],
)
def test_addresses_are_walked(pen, known, addresses, expected):
    assert check(known, pen.announce("a", addresses=addresses), pen.now_s) is expected


def test_the_funding_output_decides_about_a_channel(pen):
    raw = pen.channel(SCID, "a", "b")
    script = p2wsh(funding_script(pen.node(f"{SCID} 1"), pen.node(f"{SCID} 2")))

    def verdict(funding, graph=None, raw=raw):
        return admit(graph or Graph(REGTEST), raw, pen.now_s, funding)

    good = FundingOutput(script, CAPACITY_SAT, 6)
    assert verdict(good) is Verdict.ACCEPTED
    assert verdict(None) is Verdict.NOT_ON_CHAIN
    assert verdict(FundingOutput(script[:-1] + b"x", CAPACITY_SAT, 6)) is Verdict.WRONG_FUNDING
    assert verdict(FundingOutput(script, CAPACITY_SAT, 5)) is Verdict.UNCONFIRMED
    assert verdict(good, raw=pen.channel(SCID, "a", "b", chain=OTHER_CHAIN)) is Verdict.WRONG_CHAIN
    graph = Graph(REGTEST)
    # a refusal is not remembered: the same channel may still come in
    assert verdict(None, graph) is Verdict.NOT_ON_CHAIN
    assert verdict(good, graph) is Verdict.ACCEPTED
    graph.add_channel(raw, CAPACITY_SAT)
    assert verdict(good, graph) is Verdict.DUPLICATE


def test_a_channel_can_be_believed_unseen_within_reason(pen):
    raw = pen.channel(SCID, "a", "b")
    fields = gossip.channel_fields(raw)
    graph = Graph(REGTEST)
    assert admit(graph, raw, pen.now_s, assumed_funding(fields, 0)) is Verdict.ACCEPTED
    assert assumed_funding(fields, MAX_ASSUMED_CHANNELS) is None
    far = gossip.channel_fields(pen.channel(1 << 63, "a", "b"))
    assert assumed_funding(far, 0) is None
    assert assumed_funding(fields._replace(node_id_1=bytes(33)), 0) is None
    graph.add_channel(raw, assumed_funding(fields, 0).amount_sat)
    update = pen.update(SCID, pen.ordered("a", "b")[0], 0, maximum_msat=10**14)
    assert admit(graph, update, pen.now_s) is Verdict.ACCEPTED
    assert graph.add_update(update)
    topology = Topology(graph)
    one, two = topology.edges_of(SCID)
    assert (topology.capacity_msat[one], topology.capacity_msat[two]) == (10**14, 0), "no better is known"
    topology.update(pen.update(SCID, pen.ordered("a", "b")[1], 1, maximum_msat=10**13))
    assert topology.capacity_msat[two] == 10**13


@pytest.mark.parametrize(
    ("minimum_msat", "maximum_msat", "expected"),
    [
        (1, CAPACITY_SAT * 1000, Verdict.ACCEPTED),
        (1, CAPACITY_SAT * 1000 + 1, Verdict.UNSUITABLE),
        (2, 1, Verdict.UNSUITABLE),
    ],
)
def test_the_amounts_of_an_update_have_to_make_sense(pen, known, minimum_msat, maximum_msat, expected):
    sides = pen.ordered("a", "b")
    raw = pen.update(SCID, sides[0], 0, minimum_msat=minimum_msat, maximum_msat=maximum_msat)
    assert admit(known, raw, pen.now_s) is expected


def test_the_backend_refuses_what_a_frontend_did_not_know_to_be_old(pen, known, sides):
    known.add_update(pen.update(SCID, sides[0], 0))
    known.add_node(pen.announce("a"))
    assert admit(known, pen.update(SCID, sides[0], 0), pen.now_s) is Verdict.DUPLICATE
    assert admit(known, pen.announce("a", timestamp=1), pen.now_s) is Verdict.STALE
    assert admit(known, pen.announce("a", timestamp=pen.now_s + 1), pen.now_s) is Verdict.ACCEPTED


def test_faults_are_told_from_bad_luck():
    assert {v for v in Verdict if v.is_fault} == {Verdict.MALFORMED, Verdict.INVALID_SIGNATURE}
