"""Backend and frontends over TLS, real processes: peers connect and pay; a certificate revoked meanwhile ends its link."""

import asyncio
import datetime as dt

import msgspec
import pytest
import pytest_asyncio

from lnsim.api_client import CallFailed, NodeApi
from lnsim.cluster import Cluster, ReservedPort, wait_until
from lnsim.cluster_peer import peer_config
from lnsim.cluster_process import command
from lnsim.demo_network import Network, sessions
from node.runtime.api_client import Api, call
from node.runtime.certificates import Role, read_certificate, revocations

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory):
    said = []
    made = Cluster(
        tmp_path_factory.mktemp("run"), 2, ["payer", "payee"], lambda *what: said.append(what), tls=True
    )
    try:
        await made.start()
        await Network(made, lambda *what: said.append(what)).build()
        yield made
    finally:
        await made.stop()
    assert not made.supervisor.given_up, said
    assert made.supervisor.left_over() == 0


async def pays(cluster: Cluster) -> bool:
    payer, payee = cluster.peers
    result = await payer.call("keysend", node_id=payee.node_id, amount_msat=50_000, timeout_s=30)
    return result["status"] == "settled"


async def test_peers_pay_through_a_link_of_tls(cluster: Cluster):
    assert await pays(cluster)
    links = (await cluster.api.call("getinfo"))["frontends"]
    assert sorted(link["id"] for link in links) == ["f1", "f2"]


async def test_a_standalone_nodes_api_takes_no_password_in_clear(cluster: Cluster, tmp_path):
    await cluster.chain.call("createwallet", "alone")
    config = peer_config(tmp_path, "alone", cluster.endpoint, 1.0)
    tls = cluster.certificates.section("alone", Role.BACKEND)
    port = ReservedPort("127.0.0.1")
    config["backend"] |= {
        "api": f"127.0.0.1:{port.number}",
        "api_password": "sesame",
        "api_tls": True,
        "tls": tls,
    }
    port.close()
    path = tmp_path / "alone.yaml"
    path.write_bytes(msgspec.yaml.encode(config))
    started = await cluster.supervisor.start("alone", [*command("lnnode"), "standalone", str(path)])
    api = Api(started.ready["api"], "sesame", tls["authority"])
    assert (await asyncio.to_thread(call, api, "getinfo"))["alias"] == "alone"
    with pytest.raises(CallFailed):
        await NodeApi(api.address, "sesame").call("getinfo")
    await cluster.supervisor.stop(["alone"])


async def test_a_frontend_that_is_revoked_while_it_runs_is_out_and_its_peers_go_elsewhere(cluster: Cluster):
    held = await sessions(cluster)
    victim = held[cluster.peers[0].node_id]
    (other,) = {"f1", "f2"} - {victim}
    place, now = cluster.directory / "certs", dt.datetime.now(dt.UTC).replace(microsecond=0)
    certificate = read_certificate((place / f"{victim}.pem").read_bytes(), victim)
    listed = revocations(cluster.certificates.authority, {certificate.serial_number: now}, now)
    draft = place / "revoked.new"
    draft.write_bytes(listed)
    draft.rename(place / "revoked.pem")

    async def out() -> bool:
        return [link["id"] for link in (await cluster.api.call("getinfo"))["frontends"]] == [other]

    await wait_until(out, 5, "the link of the revoked frontend has ended")

    async def elsewhere() -> bool:
        now = await sessions(cluster)
        usable = all(channel["usable"] for channel in await cluster.peers[0].call("channels"))
        return len(now) == 2 and set(now.values()) == {other} and usable

    await wait_until(elsewhere, 30, "every peer is at the other frontend")
    assert await pays(cluster)
    assert (
        cluster.supervisor.children[victim].pid is not None
    )  # it goes on trying, and says why it gets nowhere
    assert "revoked" in cluster.supervisor.children["backend"].log_tail()
    assert "link_refused" in cluster.supervisor.children[victim].log_tail()
