"""A whole stage in one world: faults of every kind under payments, nothing lost, and the same again for the same seed."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lnsim.api_client import CallFailed, Unreachable
from lnsim.metrics.recorder import Recorder
from lnsim.run.builder import Builder
from lnsim.run.runner import Origin
from lnsim.run.show import Quiet
from lnsim.scenario import workloads as wl
from lnsim.scenario.model import ChannelsSpec, ClusterSpec, PeersSpec, Scenario, Topology
from lnsim.stage import LinkState
from lnsim.world.loop import run
from lnsim.world.main import run_world
from lnsim.world.service import RESTART_PAUSE_S
from lnsim.world.stage import WorldStage

elapse = asyncio.sleep  # virtual time: nobody waits
ORIGIN = Origin("world", "", "")
PEERS = Topology(
    cluster=ClusterSpec(frontends=2), peers={"payers": PeersSpec(count=3, channels=ChannelsSpec())}
)
PAYING = wl.Payments(payers=("payers", "hub"), payees=("payers", "hub"), rate_per_s=5.0, timeout_s=20.0)


def under(*faults, topology=PEERS, duration_s=7.0):
    return Scenario(duration_s=duration_s, topology=topology, workloads=(PAYING, *faults))


def digest(scenario, seed, path):
    """Of the trace, and the run's result."""
    result = run_world(scenario, seed, ORIGIN, Quiet(), path)
    return path.read_bytes(), result


CASES = {
    "nothing": (),
    "frontend killed": (wl.Kill(what="f1", start_s=2.0), wl.Kill(what="f2", start_s=4.0)),
    "backend killed": (wl.Kill(what="backend", start_s=3.0),),
    "backend killed again and again": (wl.Kill(what="backend", start_s=1.0, every_s=4.0),),
    "restarts": (wl.Restart(what="backend", start_s=2.0), wl.Restart(what="f1", start_s=5.0)),
    "backend paused": (wl.Pause(what="backend", start_s=2.0, for_s=3.0),),
    "frontend paused": (wl.Pause(what="f1", start_s=2.0, for_s=3.0),),
    "links": (
        wl.LinkFault(how="cut", what="f1", start_s=1.0),
        wl.LinkFault(how="clog", what="f2", start_s=2.0),
        wl.LinkFault(how="delay", what="f1", start_s=4.0),
    ),
    "slow disk": (wl.SlowDisk(start_s=2.0, for_s=3.0), wl.Kill(what="backend", start_s=4.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost(name):
    result = run_world(under(*CASES[name]), 11, ORIGIN, Quiet())
    assert result.complaints == []
    assert all(check.holds for check in result.invariants)
    assert result.metrics["payments.settled"] > 5


def test_the_same_seed_is_the_same_trace_also_elsewhere(tmp_path):
    scenario = under(wl.Kill(what="frontend", start_s=2.0), wl.Kill(what="backend", start_s=4.0))
    first, result = digest(scenario, 3, tmp_path / "first")
    assert result.complaints == []
    assert digest(scenario, 3, tmp_path / "again")[0] == first
    assert digest(scenario, 4, tmp_path / "other")[0] != first
    elsewhere = tmp_path / "elsewhere"
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, __file__, "3", elsewhere], env=environment, check=True)
    assert elsewhere.read_bytes() == first


class Built:
    """A stage whose peers have their channels."""

    def __init__(self, seed=1):
        loop = asyncio.get_running_loop()
        self.stage = WorldStage(under(), seed, Recorder(loop.time), Quiet().say)

    async def __aenter__(self):
        await self.stage.start()
        await Builder(self.stage, Quiet().say).build()
        return self.stage

    async def __aexit__(self, *_):
        await self.stage.stop()
        assert self.stage.left_over() == 0
        assert not self.stage.complaints


def test_a_killed_backend_is_unreachable_and_comes_back_with_its_channels():
    async def story():
        async with Built() as stage:
            pending = asyncio.create_task(stage.hub.call("getinfo"))
            payer = stage.groups["payers"].nodes[0]
            paying = asyncio.create_task(
                stage.hub.call("keysend", node_id=payer.node_id, amount_msat=1_000_000)
            )
            await elapse(0.02)
            await stage.kill("backend")
            assert not stage.is_up("backend")
            with pytest.raises(Unreachable):
                await paying
            with pytest.raises(Unreachable):
                await stage.hub.call("getinfo")
            assert (await pending)["epoch"] == 1
            loop = asyncio.get_running_loop()
            down_s = loop.time()
            while not stage.is_up("backend"):
                await elapse(0.05)
            assert loop.time() - down_s > RESTART_PAUSE_S - 0.1
            assert (await stage.hub.call("getinfo"))["epoch"] == 2
            async with asyncio.timeout(20):
                while not all([c["usable"] for c in await stage.hub.call("channels")]):  # noqa: C419 - a generator could not await
                    await elapse(0.05)
            paid = await stage.hub.call("keysend", node_id=payer.node_id, amount_msat=1_000)
            assert paid["status"] == "settled"

    run(story())


def test_calls_are_refused_in_the_words_of_the_node():
    async def story():
        async with Built() as stage:
            with pytest.raises(CallFailed, match="no such call"):
                await stage.hub.call("fly")
            with pytest.raises(CallFailed, match="node_id"):
                await stage.hub.call("connect", node_id="00", address="127.0.0.1:1")
            with pytest.raises(CallFailed):
                await stage.groups["payers"].nodes[0].call("fly")

    run(story())


def test_peers_come_back_through_the_other_frontend():
    async def story():
        async with Built() as stage:
            await stage.set_link("f1", LinkState.CUT)
            await elapse(75)  # a frontend holds what it has for a minute, in case the backend only restarts
            peers = await stage.hub.call("peers")
            assert [peer["frontend"] for peer in peers] == ["f2"] * 3
            await stage.set_link("f1", LinkState.OPEN)
            await stage.set_link("f2", LinkState.CLOGGED)
            await elapse(40)
            peers = await stage.hub.call("peers")
            assert [peer["frontend"] for peer in peers] == ["f1"] * 3
            await stage.set_link("f2", LinkState.OPEN)
            await elapse(10)
            assert len((await stage.hub.call("getinfo"))["frontends"]) == 2

    run(story())


def test_a_slow_disk_makes_payments_slow():
    async def story():
        async with Built() as stage:
            one, other = stage.groups["payers"].nodes[:2]
            fast = await one.call("keysend", node_id=other.node_id, amount_msat=1_000)
            await stage.set_disk_delay(0.5)
            slow = await one.call("keysend", node_id=other.node_id, amount_msat=1_000)
            assert slow["duration_ms"] > fast["duration_ms"] + 1_000

    run(story())


if __name__ == "__main__":
    kills = under(wl.Kill(what="frontend", start_s=2.0), wl.Kill(what="backend", start_s=4.0))
    digest(kills, int(sys.argv[1]), Path(sys.argv[2]))
