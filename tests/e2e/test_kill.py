"""DESIGN 9.1 and 9.2 with real processes: kill any frontend, kill the backend, while payments run."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import msgspec
import pytest
import pytest_asyncio

from lnsim import cluster_process
from lnsim.cluster import Cluster, wait_until
from lnsim.cluster_peer import peer_config
from lnsim.cluster_process import Child, command
from lnsim.demo_check import books, verdict
from lnsim.demo_network import Network, sessions

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

PAYERS = 6  # payments under way at once
AMOUNT_MSAT = 50_000
TERM_S = 5.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory):
    said = []
    made = Cluster(tmp_path_factory.mktemp("run"), 2, ["payer", "payee"], lambda *what: said.append(what))
    try:
        await made.start()
        await Network(made, lambda *what: said.append(what)).build()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up, said
    assert made.supervisor.left_over() == 0


class Traffic:
    """Payments from payer to payee through the hub, back to back."""

    def __init__(self, cluster: Cluster) -> None:
        self.payer, self.payee = cluster.peers
        self.settled, self.failed = 0, 0
        self.moved_msat: Counter[str] = Counter()
        self.going = True

    async def pay(self) -> None:
        while self.going:
            result = await self.payer.call(
                "keysend", node_id=self.payee.node_id, amount_msat=AMOUNT_MSAT, timeout_s=30
            )
            if result["status"] != "settled":
                self.failed += 1
                await wait_until(self.connected, 40, "the payer's channel is usable")
                continue
            self.settled += 1
            fee_msat = result["fee_msat"]
            self.moved_msat.update(payer=-AMOUNT_MSAT - fee_msat, payee=AMOUNT_MSAT, hub=fee_msat)

    async def connected(self) -> bool:
        return all(channel["usable"] for channel in await self.payer.call("channels"))

    async def settle(self, more: int) -> None:
        """Until that many payments more have settled."""
        wanted = self.settled + more

        async def enough() -> bool:
            return self.settled >= wanted

        await wait_until(enough, 40, f"{more} payments more than {self.settled}")


@asynccontextmanager
async def paying(cluster: Cluster):
    """Payments meanwhile; at the end every millisatoshi is where the payments say."""
    nodes = {"hub": cluster.api} | {peer.name: peer for peer in cluster.peers}
    before = await books(nodes)
    assert not before.complaints
    traffic = Traffic(cluster)
    running = [asyncio.create_task(traffic.pay()) for _ in range(PAYERS)]
    try:
        await traffic.settle(20)
        yield traffic
    finally:
        traffic.going = False
        await asyncio.gather(*running)
    after = await books(nodes, before)
    assert not after.complaints
    found = verdict(before, after, traffic.moved_msat)
    assert found.msat_conserved, found.complaints
    assert (found.htlcs_lost, found.channels_closed) == (0, 0), found.complaints


async def test_a_frontend_is_killed_and_its_peers_pay_on_through_the_other(cluster: Cluster):
    async with paying(cluster) as traffic:
        held = await sessions(cluster)
        victim = held[cluster.peers[0].node_id]
        cluster.supervisor.children[victim].kill()

        async def elsewhere() -> bool:
            now = await sessions(cluster)
            return len(now) == len(cluster.peers) and now[cluster.peers[0].node_id] != victim

        await wait_until(elsewhere, 20, "every peer has a session, the payer's at the other frontend")
        await traffic.settle(20)


@pytest.mark.parametrize("times", [1, 2])
async def test_the_backend_is_killed_and_every_channel_carries_on(cluster: Cluster, times: int, monkeypatch):
    monkeypatch.setattr(cluster_process, "RESTART_PAUSE_S", 0.1)
    backend = cluster.supervisor.children["backend"]
    async with paying(cluster) as traffic:
        for _ in range(times):
            restarts = backend.restarts
            backend.kill()

            async def back(restarts: int = restarts) -> bool:
                return backend.restarts > restarts and backend.pid is not None

            await wait_until(back, 20, "the backend is up again")
            await traffic.settle(60)


async def ends_in_time(child: Child) -> int | None:
    await child.stop(grace_s=TERM_S)
    return child._process.returncode


async def test_sigterm_ends_every_kind_of_process_in_time_and_with_status_0(cluster: Cluster, tmp_path):
    await cluster.chain.call("createwallet", "alone")
    config = peer_config(tmp_path, "alone", cluster.endpoint, 1.0)
    path = tmp_path / "alone.yaml"
    path.write_bytes(msgspec.yaml.encode(config))
    alone = await cluster.supervisor.start("alone", [*command("lnnode"), "standalone", str(path)])
    children = cluster.supervisor.children
    ended = {}
    for name in ("alone", "f1", "backend", "f2"):  # f2 has lost its backend
        ended[name] = await ends_in_time(children[name])
    assert ended == dict.fromkeys(ended, 0)
    assert alone.pid is None
