"""Route finding on the whole graph."""

import math
import random
import time
from typing import Any

from lnsim.bench.measure import percentile
from lnsim.bench.plan import Plan
from lnsim.graph_generator import REGTEST, generate
from node.gossip.graph import Graph, KnownChannel
from node.gossip.liquidity import Liquidity
from node.gossip.routes import LocalChannel, Request, find_routes
from node.gossip.topology import Topology

SEED = 1
OBSERVATIONS = 2_000  # what a node knows of balances after some payments
MIN_AMOUNT_MSAT, MAX_AMOUNT_MSAT = 1_000, 1_000_000_000
MIN_CHANNELS = 5  # of the paying node; with fewer there is little to choose from
FEE_SHARE = 0.01


def run(plan: Plan) -> dict[str, Any]:
    """Milliseconds for one `find_routes`: payer, payee and amount (1 sat to 0.01 bitcoin) drawn at random, one part.

    Payers have five channels or more; no route within 1 percent of fees counts as an answer too. Wall clock.
    """
    graph = Graph(REGTEST)
    for delta in generate(SEED, plan.channels, plan.nodes, signed=False):
        graph.apply(delta)
    topology, liquidity, draw = Topology(graph), Liquidity(), random.Random(SEED)
    _observe(graph, liquidity, draw)
    requests = _requests(graph, draw, plan.routes)
    find_routes(topology, liquidity, requests[0], 0.0)
    spent_ms, found = [], 0
    for request in requests:
        began_s = time.perf_counter()
        routes = find_routes(topology, liquidity, request, 0.0)
        spent_ms.append((time.perf_counter() - began_s) * 1_000)
        found += bool(routes)
    assert found > len(requests) / 2, f"only {found} of {len(requests)} payments found a route"
    return {"p50_ms": percentile(spent_ms, 0.5), "p99_ms": percentile(spent_ms, 0.99)}


def _observe(graph: Graph, liquidity: Liquidity, draw: random.Random) -> None:
    channels = list(graph.channels.values())
    for _ in range(OBSERVATIONS):
        channel = draw.choice(channels)
        amount_msat = round(channel.capacity_sat * 1_000 * draw.random())
        direction, succeeded = draw.randrange(2), draw.random() < 0.5
        liquidity.observe(channel.short_channel_id, direction, amount_msat, 0.0, succeeded=succeeded)


def _requests(graph: Graph, draw: random.Random, count: int) -> list[Request]:
    of_node: dict[bytes, list[KnownChannel]] = {}
    for channel in graph.channels.values():
        of_node.setdefault(channel.node_id_1, []).append(channel)
        of_node.setdefault(channel.node_id_2, []).append(channel)
    payees = sorted(of_node)
    payers = [node_id for node_id in payees if len(of_node[node_id]) >= MIN_CHANNELS]
    return [_request(of_node, draw.choice(payers), draw.choice(payees), draw) for _ in range(count)]


def _request(
    of_node: dict[bytes, list[KnownChannel]], payer: bytes, payee: bytes, draw: random.Random
) -> Request:
    amount_msat = round(math.exp(draw.uniform(math.log(MIN_AMOUNT_MSAT), math.log(MAX_AMOUNT_MSAT))))
    channels = tuple(
        LocalChannel(
            channel.node_id_2 if channel.node_id_1 == payer else channel.node_id_1,
            channel.short_channel_id,
            channel.capacity_sat * 500,
        )
        for channel in of_node[payer]
    )
    return Request(
        source=payer,
        destination=payee,
        amount_msat=amount_msat,
        max_fee_msat=10_000 + round(amount_msat * FEE_SHARE),
        final_expiry_delta=18,
        channels=channels,
    )
