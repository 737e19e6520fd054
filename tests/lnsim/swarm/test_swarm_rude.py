"""Rude connections end: by the node, or by themselves; and peers beside them notice nothing."""

import pytest

from lnsim.chain.embedded import EmbeddedNode
from lnsim.graph_generator import generate
from lnsim.swarm.rude import ALL_WAYS
from node.errors import Refused
from node.link.messages import Limits
from node.runtime.config import BackendConfig, ChannelConfig, StandaloneConfig
from node.standalone import Standalone
from node.wire.bolt2 import OpenChannel
from node.wire.codec import decode

FAST = 10_000.0
STRICT = Limits(handshake_timeout_s=0.2)


@pytest.mark.parametrize("way", ["garbage", "half_handshake", "ping_flood"])
async def test_the_node_ends_it(site, way):
    await site.open(generate(7, channels=6, nodes=4), STRICT)
    good, rude = site.swarm(count=3), site.swarm()
    await good.connect(per_s=FAST)

    running = site.runtime.spawn(_until_cut(rude, way, 10), "rude")
    await site.figures.reach(f"rude.{way}", 5)
    await site.figures.reach("rude.closed", 5)
    running.cancel()

    assert len(site.figures.observed[f"rude.{way}"]) >= 5
    assert site.figures.counts["rude.endured"] == site.figures.counts["rude.refused"] == 0
    assert site.figures.counts["swarm.lost"] == 0


async def _until_cut(swarm, way, max_open):
    await swarm.rude(per_s=20, duration_s=60, ways=(way,), max_open=max_open)


@pytest.mark.parametrize("way", ["slow_reader", "oversized_query"])
async def test_what_a_node_bears_ends_at_the_bound(site, way):
    """It stops reading from who asks too much, and sends nothing to who does not read."""
    await site.open(generate(7, channels=6, nodes=4))
    good, rude = site.swarm(count=3), site.swarm()
    await good.connect(per_s=FAST)

    await rude.call("rude", {"per_s": 20, "duration_s": 0.4, "ways": [way], "bound_s": 0.1})

    assert site.figures.counts["rude.endured"] >= 3
    assert site.figures.counts[f"rude.{way}"] == 8
    assert site.figures.observed[f"rude.{way}"] == []
    assert site.figures.counts["swarm.lost"] == 0


async def test_no_more_are_open_than_may_be(site):
    await site.open(limits=Limits())
    await site.swarm().rude(per_s=100, duration_s=0.1, ways=("half_handshake",), max_open=3)

    assert site.figures.counts["rude.half_handshake"] == 3
    assert site.figures.counts["rude.skipped"] == 7


async def test_nobody_there_is_a_refusal(site):
    frontend = await site.open()
    address = frontend.address
    await frontend.stop()
    await site.swarm(address).rude(per_s=50, duration_s=0.1, ways=("garbage", "ping_flood"))
    assert site.figures.counts["rude.refused"] >= 4


async def test_a_fake_open_is_a_good_open_channel(tmp_path, site):
    chain = EmbeddedNode(site.runtime.now, blocks=101)
    channels = ChannelConfig(max_pending=2)
    backend = BackendConfig(data_dir=str(tmp_path / "node"), channels=channels)
    node = Standalone(
        StandaloneConfig(listen="127.0.0.1:0", backend=backend), site.runtime, chain.client(""), chain.hints()
    )
    await node.start()
    try:
        swarm = site.swarm(node.listen_address, hub_id=node.node_id.hex())
        running = site.runtime.spawn(_until_cut(swarm, "fake_open", 4), "rude")
        await site.figures.reach("rude.fake_open", 4)
        await site.figures.reach("rude.errors", 2)  # the node has its two, and refuses the others
        pending = await node.commands.channels()
        running.cancel()
    finally:
        await node.stop()
        chain.close()

    assert len(pending) == 2


async def test_a_fake_open_says_one_thing_and_waits(site):
    node = await site.node()
    running = site.runtime.spawn(_until_cut(site.swarm(node.address), "fake_open", 1), "rude")
    await node.hears()
    assert isinstance(decode(await node.hears()), OpenChannel)
    running.cancel()


async def test_unknown_ways_are_refused(site):
    await site.open()
    with pytest.raises(Refused, match=r"'shouting' is no way to be rude; there are garbage, "):
        await site.swarm().rude(per_s=1, duration_s=1, ways=("garbage", "shouting"))
    assert ALL_WAYS == (
        "garbage",
        "half_handshake",
        "slow_reader",
        "ping_flood",
        "oversized_query",
        "fake_open",
    )
