"""Forwarding: payer, our cluster and payee, three nodes that each sync every promise to the disk."""

from statistics import median
from typing import Any

from msgspec import Struct

from lnsim.bench.loop import run as run_loop
from lnsim.bench.measure import percentile
from lnsim.bench.plan import Plan
from lnsim.cluster import DEPTH, Cluster, wait_until
from lnsim.cluster_peer import Peer

FRONTENDS = 2
CHANNELS = 2
SLOTS = 483  # BOLT 2: most HTLCs that one side may offer
CAPACITY_SAT = 16_000_000
AMOUNT_MSAT = (
    1_000_000  # 1,000 sat: above every dust limit, so each HTLC has an output, a script and a signature
)
SETTLE_TIMEOUT_S = 60.0
PAYMENT_TIMEOUT_S = 60.0
WARM_UP_S = 1.0
TLS_IN_FLIGHT = 50
TURNS = 4  # of each kind of link

Figures = dict[str, Any]


class Meter(Struct, frozen=True):
    """What the backend has spent so far."""

    cpu_s: float
    commits: int


def run(plan: Plan) -> Figures:
    """For each number of payments in flight: what a payer gets, and what a forward costs our backend.

    Payer and payee are standalone nodes in processes of their own; between them a backend and two frontends, one peer
    on each. All three nodes write to SQLite on disk, WAL with synchronous=FULL. One channel on either side with all
    483 slots, anchor type; 1,000 sat each way, never dust. A payer's latency runs from starting the payment (route
    finding included) to its being settled. CPU is that of the backend process alone, user and system; fsyncs are its
    transactions, one sync of the write-ahead log each.
    """
    return run_loop(_run(plan))


def run_tls(plan: Plan) -> Figures:
    """What TLS on the link costs: the backend's CPU for a forward over TLS on loopback and over Unix sockets.

    Two clusters as `forwards` has them, at the same time, loaded in turns: what slows the machine down slows down both.
    """
    return run_loop(_compare(plan))


async def _compare(plan: Plan) -> Figures:
    clusters = {name: _cluster(plan, name, tls=name == "tls") for name in ("unix", "tls")}
    try:
        for cluster in clusters.values():
            await _begin(cluster)
        spent_ms: dict[str, list[float]] = {name: [] for name in clusters}
        for _ in range(TURNS):
            for name, cluster in clusters.items():
                payer, payee = cluster.peers
                result = await _measure(cluster, payer, payee, TLS_IN_FLIGHT, plan.seconds / TURNS)
                spent_ms[name].append(result["backend_cpu_ms"])
        unix_ms, tls_ms = (median(spent_ms[name]) for name in ("unix", "tls"))
        return {"unix_cpu_ms": unix_ms, "tls_cpu_ms": tls_ms, "ratio": tls_ms / unix_ms}
    finally:
        for cluster in clusters.values():
            await cluster.stop()


def _cluster(plan: Plan, name: str, *, tls: bool = False) -> Cluster:
    channels = {"max_accepted_htlcs": SLOTS}
    return Cluster(plan.scratch(name), FRONTENDS, ["payer", "payee"], _ignore, channels=channels, tls=tls)


async def _begin(cluster: Cluster) -> None:
    await cluster.start()
    payer, payee = cluster.peers
    await _open_channels(cluster, payer, payee)
    await _load(payer, payee, in_flight=1, seconds=WARM_UP_S)


async def _run(plan: Plan) -> Figures:
    cluster = _cluster(plan, "forwards")
    try:
        await _begin(cluster)
        payer, payee = cluster.peers
        return {
            str(in_flight): await _measure(cluster, payer, payee, in_flight, plan.seconds)
            for in_flight in plan.in_flight
        }
    finally:
        await cluster.stop()


def _ignore(kind: str, text: str) -> None:
    """Whatever goes wrong shows in the figures' absence."""


async def _open_channels(cluster: Cluster, payer: Peer, payee: Peer) -> None:
    """The hub dials both, each through the frontend that has fewer sessions; then a channel on either side."""
    hub = cluster.api
    for peer in (payer, payee):
        await hub.call("connect", node_id=peer.node_id, address=peer.address)
    await payer.call("open", node_id=cluster.node_id, funding_sat=CAPACITY_SAT, channel_type="anchors")
    await hub.call("open", node_id=payee.node_id, funding_sat=CAPACITY_SAT, channel_type="anchors")
    await cluster.mine(DEPTH)

    async def ready() -> bool:
        # a payment tried too early would teach the payer that the way is no good
        views = [*await hub.call("channels"), *await payer.call("channels"), *await payee.call("channels")]
        known = (await payer.call("graph"))["channels"]
        return (
            len(views) == 2 * CHANNELS
            and all(channel["usable"] for channel in views)
            and len(known) == CHANNELS
            and all(all(channel["updates"]) for channel in known)
        )

    await wait_until(ready, SETTLE_TIMEOUT_S, "both channels usable and in the payer's graph")


async def _load(payer: Peer, payee: Peer, *, in_flight: int, seconds: float) -> Figures:
    result: Figures = await payer.call(
        "load",
        to=[payee.node_id],
        amount_msat=[AMOUNT_MSAT, AMOUNT_MSAT],
        in_flight=in_flight,
        for_s=seconds,
        timeout_s=PAYMENT_TIMEOUT_S,
    )
    assert result["settled"] > 0, f"no payment settled: {result['reasons']}"
    assert result["failed"] == 0, f"payments failed: {result['reasons']}"
    return result


async def _measure(cluster: Cluster, payer: Peer, payee: Peer, in_flight: int, seconds: float) -> Figures:
    before = await _meter(cluster)
    result = await _load(payer, payee, in_flight=in_flight, seconds=seconds)
    after = await _meter(cluster)
    settled = result["settled"]
    latencies_us = result["latencies_us"]
    return {
        "settled_per_s": settled / result["duration_s"],
        "p50_ms": percentile(latencies_us, 0.5) / 1_000,
        "p99_ms": percentile(latencies_us, 0.99) / 1_000,
        "backend_cpu_ms": (after.cpu_s - before.cpu_s) / settled * 1_000,
        "fsyncs": (after.commits - before.commits) / settled,
    }


async def _meter(cluster: Cluster) -> Meter:
    commits = (await cluster.api.call("getinfo"))["store"]["commits"]
    return Meter(cluster.supervisor.children["backend"].usage().cpu_s, commits)
