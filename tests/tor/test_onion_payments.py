"""A real cluster behind an onion service: channels, payments and crowds through Tor, while frontends are killed."""

import asyncio
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio
from onion import Lntor, published, until
from onion_cluster import PATIENCE_S, Forwarder, OnionCluster, paying, pyln, pyln_transport, require_pyln

from lnsim.demo_network import sessions
from lnsim.metrics.recorder import Recorder
from lnsim.swarm.swarm import Swarm, SwarmConfig
from node.backend.identity import CHAIN_HASHES
from node.runtime.runtime import SystemRuntime
from node.wire.bolt2 import OpenChannel, UpdateAddHtlc, UpdateFulfillHtlc

pytestmark = [pytest.mark.tor, pytest.mark.asyncio(loop_scope="module")]

AT_ONCE = 200
CIRCUITS = 20
PAYMENTS = 20


@pytest.fixture(scope="module", autouse=True)
def within(network):
    """Everything here is in the network's namespace, the event loop and all that it starts."""
    with network.inside():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lntor(network, cluster):
    made = Lntor(network, Path(tempfile.mkdtemp(dir=network.directory)), cluster.targets()).start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(network, within, tmp_path_factory):
    made = OnionCluster(network, tmp_path_factory.mktemp("run"))
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up, made.said
    assert made.supervisor.left_over() == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def onion(network, lntor):
    """The address, once the service is published everywhere."""
    address = await lntor.serving()
    await published(lntor)
    return address


@pytest_asyncio.fixture(loop_scope="module")
async def entrance(network, onion):
    made = await Forwarder(network, onion, circuits=CIRCUITS).start()
    yield made.address
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paid(network, onion, cluster):
    """The cluster, with payer and payee who have a channel each, opened through the onion address."""
    made = await Forwarder(network, onion, circuits=2).start()
    await asyncio.gather(*map(cluster.begin, cluster.peers[:2]))
    await cluster.open_channels(cluster.peers[:2], made.address)
    yield cluster
    await made.stop()


async def test_payments_go_on_through_the_onion_address_while_a_frontend_is_killed(paid):
    payer, payee = paid.running
    async with paying(paid, payer, payee) as traffic:
        await its_frontend_dies(paid, payer)
        await traffic.settle(PAYMENTS)
    print(f"payments: {dict(traffic.counts)}")


async def its_frontend_dies(cluster, payer):
    """The one that the payer's session is at; returns once all are back, the payer elsewhere."""
    loop = asyncio.get_running_loop()
    victim = (await sessions(cluster))[payer.node_id]
    cluster.supervisor.children[victim].kill()
    killed_s = loop.time()

    async def elsewhere():
        now = await sessions(cluster)
        return {peer.node_id for peer in cluster.running} <= now.keys() and now[payer.node_id] != victim

    await until(elsewhere, PATIENCE_S, "every peer has a session, the payer's at another frontend")
    print(f"{victim} killed: its peers are back after {loop.time() - killed_s:.1f} s")


async def test_a_channel_is_opened_and_pays_by_another_library_while_frontends_are_killed(paid, entrance):
    require_pyln()
    pyln_peer = paid.peers[2]
    await paid.begin(pyln_peer)
    async with pyln_transport(paid, pyln_peer.name, entrance) as (address, counts):
        paid.supervisor.children[paid.frontends[0]].kill()
        await paid.open_channels([pyln_peer], address)
        async with paying(paid, pyln_peer, paid.peers[1]) as traffic:
            await its_frontend_dies(paid, pyln_peer)
            await traffic.settle(PAYMENTS)
        print(f"payments by pyln: {dict(traffic.counts)}")
    assert counts["to_node"][OpenChannel.number] == 1, counts
    assert counts["to_node"][UpdateAddHtlc.number] >= PAYMENTS, counts
    assert counts["from_node"][UpdateFulfillHtlc.number] >= PAYMENTS, counts


async def test_another_library_comes_in_while_a_frontend_is_dead(cluster, lntor, entrance):
    require_pyln()
    seen = await pyln(cluster.node_id, entrance, pings=3)
    assert (seen.get("peer"), seen.get("pongs")) == (cluster.node_id, 3), seen
    victim = cluster.frontends[0]
    cluster.supervisor.children[victim].kill()

    async def comes_in():
        return (await pyln(cluster.node_id, entrance, pings=3)).get("pongs") == 3

    _, took_s = await until(comes_in, PATIENCE_S, "in through another frontend")
    print(f"{victim} killed: pyln is in, with its pings, after {took_s:.1f} s")


async def test_two_hundred_peers_at_once(cluster, lntor, entrance):
    children = [cluster.supervisor.children[name] for name in cluster.frontends]
    await until(lambda: all(child.is_up for child in children), PATIENCE_S, "all frontends run")
    await until(lambda: all(each["up"] for each in lntor.status()["targets"]), PATIENCE_S, "and are targets")
    failures = []
    runtime = SystemRuntime(lambda name, error: failures.append((name, error)))
    config = SwarmConfig(
        hub_id=cluster.node_id,
        addresses=(entrance,),
        count=AT_ONCE,
        chain_hash=CHAIN_HASHES["regtest"].hex(),
    )
    swarm = Swarm(runtime, "crowd", config, Recorder(runtime.monotonic))
    began_s = runtime.monotonic()
    assert await swarm.connect(per_s=10_000) == {"connected": AT_ONCE, "failed": 0}
    print(f"{AT_ONCE} peers past init on {CIRCUITS} circuits: {runtime.monotonic() - began_s:.1f} s")
    held = await sessions(cluster)
    assert len(held) >= AT_ONCE
    assert set(held.values()) == set(cluster.frontends)
    await swarm.stop()
    assert not failures
