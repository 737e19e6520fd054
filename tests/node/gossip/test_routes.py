"""Routes: BOLT 7's example, amounts recomputed forward, limits kept, what was learnt used."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lnsim.graph_generator import REGTEST, generate
from node.gossip import raw as gossip
from node.gossip.graph import ChannelAdded, ChannelRemoved, ChannelUpdated, Graph
from node.gossip.liquidity import HALF_LIFE_S, Liquidity
from node.gossip.routes import Hop, LocalChannel, Request, fee_msat, find_routes
from node.gossip.topology import REBUILD_INTERVAL_S, Topology
from node.payment.invoice_fields import HintHop

BLOCK = 600_000 << 40
CAPACITY_SAT = 10_000_000
NOW_S = 0.0


class Net:
    """A small public graph, and us, "A", with private knowledge of our own channels."""

    def __init__(self, pen):
        self.pen = pen
        self.graph = Graph(REGTEST)
        self.scids = {}

    def join(self, a, b, capacity_sat=CAPACITY_SAT, features=b""):
        scid = BLOCK + len(self.scids)
        self.scids[a + b] = self.scids[b + a] = scid
        self.graph.add_channel(self.pen.channel(scid, a, b, features=features), capacity_sat)
        return scid

    def terms(self, sender, target, scid=None, timestamp=1, **policy):
        """sender's channel_update for its channel to target."""
        direction = int(self.pen.node(sender) > self.pen.node(target))
        scid = scid or self.scids[sender + target]
        raw = self.pen.update(scid, sender, direction, timestamp=timestamp, **policy)
        self.graph.add_update(raw)
        return raw

    def request(self, target, amount_msat, *peers, spendable_msat=10**10, **limits):
        channels = tuple(
            LocalChannel(self.pen.node(peer), self.scids.get("A" + peer, index + 1), spendable_msat)
            for index, peer in enumerate(peers)
        )
        defaults = {"max_fee_msat": amount_msat, "final_expiry_delta": 18, "channels": channels}
        return Request(
            source=self.pen.node("A"),
            destination=self.pen.node(target),
            amount_msat=amount_msat,
            **(defaults | limits),
        )

    def find(self, request, liquidity=None):
        return find_routes(Topology(self.graph), liquidity or Liquidity(), request, NOW_S)


@pytest.fixture
def net(pen):
    return Net(pen)


@pytest.fixture
def diamond(net):
    """BOLT 7, routing example: A-B, B-C, C-D, D-A, each with its own terms."""
    for a, b in ("AB", "BC", "CD", "DA"):
        net.join(a, b)
    for n, pairs in enumerate((("AB", "AD"), ("BA", "BC"), ("CB", "CD"), ("DA", "DC")), 1):
        for sender, target in pairs:
            net.terms(sender, target, base_msat=100 * n, ppm=1000 * n, delta=10 * n)
    return net


def test_the_example_of_bolt_7(diamond):
    node, scids = diamond.pen.node, diamond.scids
    # expiry 18 of the payee, and 42 as a shadow route
    request = diamond.request("C", 4_999_999, "B", "D", final_expiry_delta=60)
    assert diamond.find(request) == (
        (Hop(node("B"), scids["AB"], 5_010_198, 80), Hop(node("C"), scids["BC"], 4_999_999, 60)),
    )
    request = diamond.request("C", 4_999_999, "D", final_expiry_delta=60)
    assert diamond.find(request) == (
        (Hop(node("D"), scids["AD"], 5_020_398, 100), Hop(node("C"), scids["DC"], 4_999_999, 60)),
    )


def test_a_payment_to_a_peer_costs_nothing(diamond):
    request = diamond.request("B", 4_999_999, "B", "D", max_fee_msat=0)
    assert diamond.find(request) == ((Hop(diamond.pen.node("B"), diamond.scids["AB"], 4_999_999, 18),),)


def test_a_peer_outside_the_public_graph_can_be_paid(diamond):
    request = diamond.request("private", 1_000, "private")
    assert diamond.find(request) == ((Hop(diamond.pen.node("private"), 1, 1_000, 18),),)


@pytest.mark.parametrize(
    "changed",
    [
        {"max_fee_msat": 10_198},
        {"max_expiry_delta": 37},
        {"amount_msat": 10**10},
        {"amount_msat": 0},
    ],
)
def test_no_route_beyond_the_limits(diamond, changed):
    request = diamond.request("C", 4_999_999, "B", max_fee_msat=10_199, max_expiry_delta=38)
    assert diamond.find(request)
    assert diamond.find(replace(request, **changed)) == ()


def test_nowhere_to_go(diamond):
    assert diamond.find(diamond.request("nobody", 1_000, "B")) == ()
    assert diamond.find(diamond.request("C", 1_000)) == ()
    assert diamond.find(diamond.request("A", 1_000, "B")) == ()
    assert Net(diamond.pen).find(diamond.request("C", 1_000, "B")) == ()


def passes_d(routes, net):
    return routes[0][0].node_id == net.pen.node("D")


@pytest.mark.parametrize(
    "policy",
    [
        {"disabled": True},
        {"minimum_msat": 5_000_000},
        {"maximum_msat": 4_999_998},
        {"base_msat": 10**9},
        {"delta": 2016},
    ],
)
def test_edges_that_do_not_fit_are_avoided(diamond, policy):
    diamond.terms("B", "C", timestamp=2, **policy)
    assert passes_d(diamond.find(diamond.request("C", 4_999_999, "B", "D")), diamond)


def test_what_failed_before_can_be_excluded(diamond):
    request = diamond.request("C", 4_999_999, "B", "D")
    node, scid = diamond.pen.node, diamond.scids["BC"]
    channel = {(scid, int(node("B") > node("C")))}
    assert passes_d(diamond.find(replace(request, excluded_channels=channel)), diamond)
    ours = {(diamond.scids["AB"], int(node("A") > node("B")))}
    assert passes_d(diamond.find(replace(request, excluded_channels=ours)), diamond)
    assert passes_d(diamond.find(replace(request, excluded_nodes={node("B")})), diamond)
    assert diamond.find(replace(request, excluded_nodes={node("C")}))
    alias = {((1 << 64) - 1, 0)}
    assert not passes_d(diamond.find(replace(request, excluded_channels=alias)), diamond)


def test_compulsory_features_that_we_do_not_know_bar_a_channel(net):
    for a, b in ("AB", "BC"):
        net.join(a, b, features=b"\x01" + bytes(15) if b == "C" else b"")
        net.terms(a, b)
    assert net.find(net.request("C", 1_000, "B")) == ()
    assert net.find(net.request("B", 1_000, "B"))


def test_of_parallel_channels_one_that_fits_is_taken(net):
    net.join("A", "B")
    cheap = net.join("B", "C", capacity_sat=1_000)
    net.terms("B", "C", scid=cheap, base_msat=0, ppm=0, maximum_msat=1_000_000)
    dear = net.join("B", "C")
    net.terms("B", "C", scid=dear, base_msat=1_000, ppm=1_000, maximum_msat=10**9)
    for amount_msat, scid in ((10_000, cheap), (2_000_000, dear)):
        ((_, last),) = net.find(net.request("C", amount_msat, "B"))
        assert last.short_channel_id == scid


def test_a_channel_too_small_for_amount_and_fees_is_taken_out(net):
    """The amount itself would fit; what the next node asks on top does not."""
    net.join("A", "B")
    for a, b in ("BC", "CD", "BE", "ED"):
        net.join(a, b)
    net.terms("B", "C", base_msat=0, ppm=0, maximum_msat=1_000_000)
    net.terms("C", "D", base_msat=500, ppm=0)
    net.terms("B", "E", base_msat=5_000, ppm=0)
    net.terms("E", "D", base_msat=5_000, ppm=0)
    ((_, second, _),) = net.find(net.request("D", 1_000_000, "B"))
    assert second.node_id == net.pen.node("E")
    ((_, second, _),) = net.find(net.request("D", 999_500, "B"))
    assert second.node_id == net.pen.node("C")


def test_our_channel_needs_room_for_the_fees(diamond):
    request = diamond.request("C", 1_000_000, "B", "D", max_fee_msat=10**6)
    low, high = request.channels
    short = replace(low, spendable_msat=1_000_000)
    routes = diamond.find(replace(request, channels=(short, high)))
    assert passes_d(routes, diamond)


def test_a_route_may_not_lead_through_ourselves(net):
    for a, b in ("AB", "AC", "CD"):
        net.join(a, b)
        net.terms(a, b)
        net.terms(b, a)
    assert net.find(net.request("D", 1_000, "B")) == ()


def hints(pen, *hops):
    return tuple(HintHop(pen.node(name), scid, base, 1000, delta) for name, scid, base, delta in hops)


def test_route_hints_lead_to_private_payees(diamond):
    pen = diamond.pen
    hint = hints(pen, ("C", 77, 1_000, 9), ("X", 78, 2_000, 11))
    request = diamond.request("payee", 1_000_000, "B", "D", route_hints=(hint,))
    ((to_b, to_c, to_x, last),) = diamond.find(request)
    assert (last.node_id, last.short_channel_id, last.amount_msat) == (pen.node("payee"), 78, 1_000_000)
    assert (to_x.node_id, to_x.short_channel_id) == (pen.node("X"), 77)
    assert to_x.amount_msat == 1_000_000 + 2_000 + 1_000
    assert to_c.amount_msat == 1_003_000 + 1_000 + 1_003
    assert [h.expiry_delta for h in (to_c, to_x, last)] == [38, 29, 18]
    assert to_b.amount_msat == to_c.amount_msat + 200 + to_c.amount_msat * 2 // 1000


def test_of_several_hints_the_cheapest_is_taken_and_barred_ones_are_not(diamond):
    pen = diamond.pen
    dear, cheap = hints(pen, ("C", 77, 9_000, 9)), hints(pen, ("C", 78, 1_000, 9))
    through_us = hints(pen, ("A", 79, 0, 9))
    request = diamond.request("payee", 1_000_000, "B", route_hints=(dear, cheap, through_us, ()))
    assert diamond.find(request)[0][-1].short_channel_id == 78
    barred = {(78, int(pen.node("C") > pen.node("payee")))}
    assert diamond.find(replace(request, excluded_channels=barred))[0][-1].short_channel_id == 77


def test_a_hint_may_begin_at_a_peer_outside_the_graph(diamond):
    hint = hints(diamond.pen, ("friend", 77, 1_000, 9))
    request = diamond.request("payee", 10_000, "friend", route_hints=(hint,))
    ((first, last),) = diamond.find(request)
    assert (first.amount_msat, last.amount_msat) == (10_000 + 1_000 + 10, 10_000)


def test_more_hops_than_an_onion_holds_are_no_route(net):
    names = ["A", *(f"n{i}" for i in range(22))]
    for a, b in pairwise(names):
        net.join(a, b)
        net.terms(a, b, base_msat=0, ppm=0, delta=1)
    assert len(net.find(net.request("n19", 1_000, "n0"))[0]) == 20
    assert net.find(net.request("n20", 1_000, "n0")) == ()


def test_failures_steer_away_and_fade(diamond):
    liquidity, node = Liquidity(), diamond.pen.node
    request, topology = diamond.request("C", 4_999_999, "B", "D"), Topology(diamond.graph)
    scid, direction = diamond.scids["BC"], int(node("B") > node("C"))

    def takes_d(now_s):
        return passes_d(find_routes(topology, liquidity, request, now_s), diamond)

    assert not takes_d(0)
    liquidity.observe(scid, direction, 4_000_000, 0, succeeded=False)
    assert takes_d(1)
    assert not takes_d(40 * HALF_LIFE_S)
    liquidity.observe(scid, direction, 4_000_000, 1, succeeded=False)
    liquidity.observe(scid, direction, 6_000_000, 2, succeeded=True)
    assert not takes_d(3)


def test_bounds_of_liquidity(diamond):
    liquidity, topology, scid = Liquidity(), Topology(diamond.graph), diamond.scids["BC"]
    forth, back = topology.edges_of(scid)
    capacity = CAPACITY_SAT * 1000

    def bounds(now_s):
        lower, upper = liquidity.bounds(topology, now_s)
        return [(lower[edge], upper[edge]) for edge in (forth, back)]

    assert bounds(0) == [(0, capacity), (0, capacity)]
    liquidity.observe(scid, 0, 6_000, 0, succeeded=True)
    assert bounds(0) == [(6_000, capacity), (6_000, capacity)]
    assert bounds(HALF_LIFE_S) == [(3_000, capacity), (3_000, capacity)]
    liquidity.observe(scid, 0, 9_001, 0, succeeded=False)
    assert bounds(0)[0] == (6_000, 9_000)
    liquidity.observe(scid, 0, 5_001, 0, succeeded=False)
    assert bounds(0)[0] == (5_000, 5_000)
    lower, upper = bounds(HALF_LIFE_S)[0]
    assert (lower, upper) == (2_500, (capacity + 5_000) / 2)
    liquidity.observe((1 << 64) - 1, 0, 5, 0, succeeded=True)
    assert bounds(0)[0] == (5_000, 5_000)


def test_liquidity_is_bounded(diamond, monkeypatch):
    monkeypatch.setattr("node.gossip.liquidity.MAX_ENTRIES", 100)
    liquidity, topology, scid = Liquidity(), Topology(diamond.graph), diamond.scids["BC"]
    for n in range(500):
        liquidity.observe(n, n & 1, 5, n, succeeded=False)
        assert len(liquidity) <= 100
    liquidity.observe(scid, 0, 1_001, 500, succeeded=False)
    for n in range(1000, 1060):
        liquidity.observe(n, n & 1, 5, 501 + n, succeeded=False)
    edge = topology.edges_of(scid)[0]
    assert liquidity.bounds(topology, 500)[1][edge] == 1_000


def test_a_large_payment_is_split_over_what_can_carry_it(diamond):
    request = diamond.request("C", 800_000_000, "B", "D", spendable_msat=600_000_000, max_parts=8)
    routes = diamond.find(request)
    assert len(routes) > 1
    assert sum(route[-1].amount_msat for route in routes) == 800_000_000
    assert diamond.find(replace(request, max_parts=1)) == ()
    assert diamond.find(replace(request, amount_msat=1_300_000_000)) == ()
    poor = replace(request, max_fee_msat=1_000_000)
    assert diamond.find(poor) == ()


def test_the_topology_follows_the_graph(diamond):
    graph, topology, node = diamond.graph, Topology(diamond.graph), diamond.pen.node
    edge = topology.edges_of(diamond.scids["BC"])[int(node("B") > node("C"))]
    topology.apply(ChannelUpdated(diamond.terms("B", "C", timestamp=9, base_msat=7, ppm=8, delta=9)))
    assert (topology.base_msat[edge], topology.ppm[edge], topology.delta[edge]) == (7, 8, 9)
    topology.update(b"\x01\x02" + bytes(60))
    topology.update(b"\x01\x02" + b"\xff" * 136)
    new = diamond.join("B", "X")
    topology.apply(ChannelAdded(graph.channels[new].announcement, 5))
    topology.refresh(100)
    assert topology.edges_of(new)
    topology.apply(ChannelRemoved(diamond.scids["BC"]))
    assert not topology.enabled[topology.edges_of(diamond.scids["BC"])[0]]
    graph.remove_channel(diamond.scids["BC"])
    topology.refresh(100 + REBUILD_INTERVAL_S)
    assert topology.edges_of(diamond.scids["BC"]) == ()


def check_route(graph, request, route):
    """Forward along the route, as its nodes will: each is paid, no channel is asked for more than it takes."""
    assert route[-1].node_id == request.destination
    assert route[-1].expiry_delta == request.final_expiry_delta
    assert len(route) <= 20
    assert route[0].expiry_delta <= request.max_expiry_delta
    assert len({hop.node_id for hop in route}) == len(route)
    for before, after in pairwise(route):
        channel = graph.channels[after.short_channel_id]
        direction = int(before.node_id > after.node_id)
        assert {before.node_id, after.node_id} == {channel.node_id_1, channel.node_id_2}
        terms = gossip.update_fields(channel.update(direction))
        assert not terms.channel_flags & gossip.DISABLE
        assert terms.htlc_minimum_msat <= after.amount_msat <= terms.htlc_maximum_msat
        assert after.amount_msat <= channel.capacity_sat * 1000
        fee = terms.fee_base_msat + after.amount_msat * terms.fee_proportional_millionths // 1_000_000
        assert before.amount_msat - after.amount_msat == fee
        assert before.expiry_delta - after.expiry_delta == terms.cltv_expiry_delta


GENERATED = Graph(REGTEST)
for _delta in generate(5, channels=400, nodes=80, signed=False):
    GENERATED.apply(_delta)
TOPOLOGY = Topology(GENERATED)


@settings(max_examples=120, deadline=None)
@given(
    rng=st.randoms(use_true_random=False),
    amount_msat=st.one_of(st.integers(1, 10**6), st.integers(10**6, 10**10)),
    max_parts=st.sampled_from([1, 1, 4, 16]),
)
def test_every_route_can_be_walked_forward(rng: random.Random, amount_msat, max_parts):
    nodes = sorted(GENERATED.nodes)
    source, destination, *peers = rng.sample(nodes, 8)
    channels = tuple(
        LocalChannel(peer, index + 1, rng.randrange(1, 3 * amount_msat)) for index, peer in enumerate(peers)
    )
    request = Request(
        source=source,
        destination=destination,
        amount_msat=amount_msat,
        max_fee_msat=amount_msat // rng.choice((1, 10, 100)) + rng.choice((0, 5_000)),
        final_expiry_delta=18,
        channels=channels,
        max_parts=max_parts,
        max_expiry_delta=rng.choice((200, 1000, 2016)),
        excluded_nodes=frozenset(rng.sample(nodes, 3)),
    )
    routes = find_routes(TOPOLOGY, Liquidity(), request, NOW_S)
    if not routes:
        return
    assert len(routes) <= max_parts
    assert sum(route[-1].amount_msat for route in routes) == amount_msat
    assert sum(map(fee_msat, routes)) <= request.max_fee_msat
    used, spent = {}, {}
    for route in routes:
        check_route(GENERATED, request, route)
        assert not {hop.node_id for hop in route[:-1]} & {source, *request.excluded_nodes}
        spent[route[0].short_channel_id] = spent.get(route[0].short_channel_id, 0) + route[0].amount_msat
        for before, hop in pairwise(route):
            key = hop.short_channel_id, before.node_id
            used[key] = used.get(key, 0) + hop.amount_msat
    assert all(amount <= channels[scid - 1].spendable_msat for scid, amount in spent.items())
    assert all(amount <= GENERATED.channels[scid].capacity_sat * 1000 for (scid, _), amount in used.items())
