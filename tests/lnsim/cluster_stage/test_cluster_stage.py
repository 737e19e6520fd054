"""The stage in real processes: faults do what they say, figures are taken meanwhile, and nothing is left."""

import asyncio

import psutil
import pytest
import pytest_asyncio

from lnsim.api_client import CallFailed
from lnsim.cluster import all_of, wait_until
from lnsim.cluster_stage import ClusterStage
from lnsim.metrics.recorder import Recorder
from lnsim.scenario.model import ChannelsSpec, ClusterSpec, PeersSpec, Scenario, Topology
from lnsim.scenario.workloads import LinkFault, Rude, SlowDisk
from lnsim.stage import LinkState

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

NODES, LIGHT = 3, 20
DELAY_S = 0.2
SCENARIO = Scenario(
    duration_s=60,
    topology=Topology(
        cluster=ClusterSpec(frontends=2, backend={"handshakes_per_s": 1_000}),
        peers={"nodes": PeersSpec(count=NODES, channels=ChannelsSpec()), "crowd": PeersSpec(count=LIGHT)},
    ),
    workloads=(LinkFault(how="cut"), SlowDisk(), Rude()),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage():
    loop = asyncio.get_running_loop()
    made = ClusterStage(SCENARIO, 7, Recorder(loop.time), lambda *_: None)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
    assert made.left_over() == 0
    assert not made.complaints


async def linked(stage) -> dict[str, dict]:
    return {status["id"]: status for status in (await stage.hub.call("getinfo"))["frontends"]}


async def until_linked(stage, *names: str) -> None:
    async def are_linked() -> bool:
        return set(await linked(stage)) == set(names)

    await wait_until(are_linked, 20, f"{names} are linked")


async def test_peers_of_both_kinds_reach_the_node_under_test(stage):
    nodes, crowd = stage.groups["nodes"].nodes, stage.groups["crowd"].swarm
    assert [node.name for node in nodes] == ["nodes1", "nodes2", "nodes3"]
    await all_of(*(node.call("connect", node_id=stage.hub_id, address=stage.hub_address) for node in nodes))
    assert await crowd.call("connect", per_s=500) == {"connected": LIGHT, "failed": 0}
    assert (await stage.hub.call("getinfo"))["peers"] >= NODES
    assert stage.groups["rude"].swarm is not None
    await stage.sample()
    await stage.sample()
    taken = set(stage.recorder.series())
    assert taken >= {f"{who}.rss_mb" for who in ("backend", "f1", "f2", "chain", "workers", "links")}
    assert taken >= {"f1.messages_in_per_s", "f2.sessions", "f1.link_delay_ms", "f2.cpu_share"}
    assert taken >= {"swarm.crowd.connected", "chain.height", "backend.commits_per_s"}
    assert stage.recorder.metrics()["swarm.crowd.connected.last"] == LIGHT


async def test_a_killed_frontend_is_back_and_so_are_its_peers(stage):
    await stage.kill("f1")
    assert not stage.is_up("f1")
    await stage.sample()

    async def is_back() -> bool:
        return stage.is_up("f1")

    await wait_until(is_back, 20, "f1 is back")
    await until_linked(stage, "f1", "f2")


async def test_a_restarted_backend_is_back_when_that_returns(stage):
    await stage.restart("backend")
    assert stage.is_up("backend")
    assert (await stage.hub.call("getinfo"))["node_id"] == stage.hub_id
    await until_linked(stage, "f1", "f2")


async def test_a_paused_frontend_goes_on(stage):
    pid = next(p.pid for p in psutil.Process().children() if "f2.yaml" in " ".join(p.cmdline()))
    pausing = asyncio.create_task(stage.pause("f2", 0.3))

    async def stands_still() -> bool:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED

    await wait_until(stands_still, 5, "f2 stands still", pause_s=0.01)
    assert stage.is_up("f2")
    await pausing
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED


async def test_a_delayed_link_is_measured_and_a_cut_one_is_gone(stage):
    await stage.set_link("f1", LinkState.DELAYED, DELAY_S)

    async def is_slow() -> bool:
        return (await linked(stage))["f1"]["delay_ms"] > 1_000 * DELAY_S

    await wait_until(is_slow, 10, "the delay is seen")
    await stage.set_link("f1", LinkState.CUT)
    await until_linked(stage, "f2")
    await stage.set_link("f1", LinkState.OPEN)
    await until_linked(stage, "f1", "f2")


async def test_a_slow_disk_holds_up_what_is_promised(stage):
    loop = asyncio.get_running_loop()
    await stage.set_disk_delay(DELAY_S)
    began_s = loop.time()
    await stage.hub.call("invoice", amount_msat=1, description="slow")
    await stage.set_disk_delay(0)
    assert loop.time() - began_s >= DELAY_S


async def test_names_that_are_none_have_words(stage):
    with pytest.raises(CallFailed, match="no process f9; there are backend and f1, f2"):
        await stage.kill("f9")


async def test_one_seed_gives_each_name_its_own_chance(stage):
    assert stage.random("a").random() == stage.random("a").random() != stage.random("b").random()
