"""The same peers on virtual time: minutes pass in no time, and the same seed is the same life."""

import asyncio

from lnsim.chain.embedded import EmbeddedNode
from lnsim.graph_generator import REGTEST
from lnsim.metrics.recorder import Recorder
from lnsim.swarm.rude import ALL_WAYS
from lnsim.swarm.swarm import Swarm, SwarmConfig
from lnsim.world.loop import run
from lnsim.world.world import World
from node.runtime.config import BackendConfig, StandaloneConfig
from node.standalone import Standalone

elapse = asyncio.sleep  # virtual time: nobody waits
FAST = 1_000.0
WAYS = [way for way in ALL_WAYS if way != "oversized_query"]  # which costs the node real time by the second


async def live(seed):
    """Ten minutes of ten peers; what there is to say about them."""
    world = World(seed)
    chain = EmbeddedNode(world.now, datadir=world.directory)
    backend = BackendConfig(data_dir=str(world.directory / "hub"))
    config = StandaloneConfig(listen="127.0.0.1:0", backend=backend)
    hub = Standalone(config, world.process("hub"), chain.client(""), chain.hints())
    await hub.start()
    recorder = Recorder(asyncio.get_running_loop().time)
    idle = SwarmConfig(
        hub_id=hub.node_id.hex(),
        addresses=(hub.listen_address,),
        count=10,
        chain_hash=REGTEST.hex(),
        listens=True,
    )
    swarm = Swarm(world.process("swarm"), "idle", idle, recorder)

    assert await swarm.connect(per_s=FAST) == {"connected": 10, "failed": 0}
    await elapse(500)
    await swarm.drop(share=1.0)
    await swarm.churn(per_s=1, duration_s=20, ramp_s=5)
    await swarm.rude(per_s=1, duration_s=60, ways=WAYS)
    await elapse(20)
    assert (await swarm.stats())["ready"] == 10

    await swarm.stop()
    await hub.stop()
    chain.close()
    world.close()
    assert world.complaints == []
    return world.trace.digest, recorder.metrics()


def test_ten_minutes_are_the_same_again():
    digest, metrics = run(live(7))

    assert metrics["ping.answered"] > 10 * 600 / 20 * 0.9
    assert metrics["ping.late"] == 0
    assert metrics["reconnect.count"] == metrics["swarm.lost"] == 10
    assert 0.025 < metrics["reconnect.max_s"] < 1
    assert metrics["handshake.count"] >= 10 + 17
    assert metrics["rude.half_handshake.p50_s"] > 15  # the node's patience with strangers
    assert metrics["rude.garbage.count"] > 5
    assert run(live(7)) == (digest, metrics)
    assert run(live(8))[0] != digest
