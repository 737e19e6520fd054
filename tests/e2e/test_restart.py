"""The backend goes and comes back, with real processes: idle peers do not notice, and payments go on.

LNSIM_IDLE_PEERS sets how many idle peers there are: the test takes 300, the figures in the documentation are of 1,000.
"""

import asyncio
import os
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from test_kill import paying

from lnsim import cluster_process
from lnsim.cluster import Cluster, wait_until
from lnsim.demo_network import Network, sessions
from lnsim.swarm.swarm import Swarm, SwarmConfig
from node.runtime.runtime import SystemRuntime

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

IDLE = int(os.environ.get("LNSIM_IDLE_PEERS", "300"))
DIALS_PER_S = 100.0
REGTEST = "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"
BACK_S = 30.0


class Figures:
    """What the swarm counts; `swarm.lost` are the sessions that were closed under it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] += by

    def observe(self, name: str, value: float) -> None: ...


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory):
    said = []
    limits = {"max_peers_without_channels": 2 * IDLE}
    directory = tmp_path_factory.mktemp("restart")
    made = Cluster(directory, 2, ["payer", "payee"], lambda *what: said.append(what), limits)
    try:
        await made.start()
        await Network(made, lambda *what: said.append(what)).build()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up, said
    assert made.supervisor.left_over() == 0


@asynccontextmanager
async def idle_peers(cluster: Cluster):
    """Connected over both frontends, and pinged: a session that is dead unnoticed shows."""
    failures, figures = [], Figures()
    runtime = SystemRuntime(lambda name, error: failures.append((name, error)))
    config = SwarmConfig(
        hub_id=cluster.node_id,
        addresses=(cluster.address,),
        count=IDLE,
        chain_hash=REGTEST,
        ping_interval_s=2.0,
    )
    swarm = Swarm(runtime, "idle", config, figures)
    await swarm.connect(DIALS_PER_S)
    assert (await swarm.stats())["ready"] == IDLE
    await still_pinged(swarm)  # meanwhile what is merely due is written
    figures.counts.clear()
    try:
        yield swarm, figures
    finally:
        await swarm.stop()
    assert failures == []


async def adopted(cluster: Cluster) -> int:
    return len(await sessions(cluster))


async def still_pinged(swarm: Swarm) -> None:
    """Every peer gets an answer to a ping that was sent after now."""
    before = (await swarm.stats())["pongs"]

    async def answered() -> bool:
        return (await swarm.stats())["pongs"] >= before + IDLE

    await wait_until(answered, BACK_S, "every idle peer is answered")


async def has_gone(cluster: Cluster, restarts: int) -> None:
    backend = cluster.supervisor.children["backend"]

    async def back() -> bool:
        return backend.restarts > restarts and backend.is_up

    await wait_until(back, BACK_S, "the backend is up again")


async def resumed_s(cluster: Cluster, traffic) -> float:
    """How long after the backend was back the next payment settled."""
    began_s, settled = time.monotonic(), traffic.settled

    async def another() -> bool:
        return traffic.settled > settled

    await wait_until(another, BACK_S, "a payment settles")
    return time.monotonic() - began_s


async def test_a_planned_restart_closes_no_session_and_payments_go_on(cluster: Cluster):
    async with idle_peers(cluster) as (swarm, figures), paying(cluster) as traffic:
        held = await sessions(cluster)
        backend = cluster.supervisor.children["backend"]
        pid, began_s = backend.pid, time.monotonic()
        restarting = asyncio.create_task(cluster.supervisor.restart("backend"))

        async def gone() -> bool:
            return backend.pid != pid

        await wait_until(gone, BACK_S, "the backend has stopped")
        stopped_s = time.monotonic() - began_s
        assert stopped_s < cluster_process.STOP_GRACE_S, "it stopped by itself"
        await restarting
        away_s = time.monotonic() - began_s
        took_s = await resumed_s(cluster, traffic)
        await still_pinged(swarm)
        assert figures.counts["swarm.lost"] == 0
        assert await sessions(cluster) == held
        await traffic.settle(20)
        failed = traffic.failed
    print(
        f"planned restart, {IDLE} idle: 0 closed; stopped in {stopped_s:.2f} s, up after {away_s:.2f} s; "
        f"a payment {took_s:.2f} s later; {failed} failed"
    )


async def test_a_killed_backend_closes_no_idle_session_and_payments_go_on(cluster: Cluster, monkeypatch):
    monkeypatch.setattr(cluster_process, "RESTART_PAUSE_S", 0.1)
    backend = cluster.supervisor.children["backend"]
    async with idle_peers(cluster) as (swarm, figures), paying(cluster) as traffic:
        restarts = backend.restarts
        backend.kill()
        await has_gone(cluster, restarts)
        took_s = await resumed_s(cluster, traffic)
        await still_pinged(swarm)
        assert figures.counts["swarm.lost"] == 0
        assert await adopted(cluster) == IDLE + len(cluster.peers)
        await traffic.settle(20)
    print(f"kill -9, {IDLE} idle: 0 closed; a payment after {took_s:.2f} s")
