"""Light peers come in, answer, ask, are cut off, come back, leave."""

import pytest

from lnsim.swarm import pings
from node.errors import Refused
from node.link.messages import Limits
from node.wire import bolt1
from node.wire.codec import decode, encode

FAST = 10_000.0


async def test_all_come_in_at_the_rate_that_was_asked_for(site):
    await site.open()
    swarm = site.swarm(count=20)

    began_s = site.runtime.monotonic()
    assert await swarm.connect(per_s=100) == {"connected": 20, "failed": 0}
    assert site.runtime.monotonic() - began_s >= 0.19
    assert len(set(site.office.came)) == 20
    assert len(site.figures.observed["handshake"]) == 20

    assert await swarm.connect(per_s=FAST, count=5) == {"connected": 5, "failed": 0}
    for _ in range(15):
        await site.office.left.acquire()
    assert (await swarm.stats())["peers"] == 5


async def test_peers_answer_pings_and_send_their_own(site):
    await site.open(limits=Limits(ping_interval_s=0.01, ping_timeout_s=0.5))
    swarm = site.swarm(count=10, ping_interval_s=0.2)
    await swarm.connect(per_s=FAST)

    await site.figures.reach("ping.answered", 30)

    stats = await swarm.stats()
    assert stats["ready"] == 10
    assert stats["late_pongs"] == 0
    assert stats["pings"] >= stats["pongs"] >= 30
    assert site.figures.counts["ping.wrong"] == site.figures.counts["swarm.lost"] == 0


@pytest.mark.parametrize(("asked", "answered"), [(0, 0), (300, 300), (65_531, 65_531), (65_532, None)])
async def test_a_pong_has_the_size_that_was_asked_for(site, asked, answered):
    node = await site.node(sends=(encode(bolt1.Ping(asked, b"")), encode(bolt1.Ping(1, b""))))
    await site.swarm(node.address, count=1).connect(per_s=FAST)

    heard = [decode(await node.hears()) for _ in range(2 if answered is None else 3)]

    assert isinstance(heard[0], bolt1.Init)
    assert [len(pong.ignored) for pong in heard[1:]] == ([] if answered is None else [answered]) + [1]


async def test_who_does_not_answer_pings_is_dropped_and_tried_again(site, monkeypatch):
    monkeypatch.setattr(pings, "PONG_TIMEOUT_S", 0.1)
    node = await site.node()
    await site.swarm(node.address, count=2, ping_interval_s=0.1).connect(per_s=FAST)

    await site.figures.reach("ping.late", 2)
    await site.figures.reach("reconnect", 2)

    assert node.connections >= 4
    assert site.figures.counts["ping.answered"] == 0


async def test_pongs_of_another_size_and_unasked_ones_count_for_nothing(site):
    node = await site.node(sends=(encode(bolt1.Pong(b"")),), pongs_with=999)
    await site.swarm(node.address, count=1, ping_interval_s=0.1).connect(per_s=FAST)

    await site.figures.reach("ping.wrong", 2)

    assert site.figures.counts["ping.wrong"] == len(site.figures.observed["ping"])
    assert site.figures.counts["ping.answered"] == 0


async def test_who_is_cut_off_comes_back_by_itself(site):
    await site.open()
    swarm = site.swarm(count=10)
    await swarm.connect(per_s=FAST)

    assert await swarm.drop(share=0.5) == {"dropped": 5}
    await site.figures.reach("reconnect", 5)

    assert (await swarm.stats())["ready"] == 10
    assert len(set(site.office.came)) == 10
    assert len(site.office.came) == 15
    assert max(site.figures.observed["reconnect"]) < 2


async def test_all_come_back_through_the_next_frontend(site):
    first = await site.open()
    address = first.address
    swarm = site.swarm(count=10)
    await swarm.connect(per_s=FAST)

    await first.stop()
    await site.figures.reach("swarm.refused", 1)
    await site.frontend(address)
    await site.figures.reach("reconnect", 10)

    assert (await swarm.stats())["ready"] == 10


async def test_a_node_that_hangs_up_on_everybody_is_not_hammered(site):
    node = await site.node(hangs_up=True)
    swarm = site.swarm(node.address)
    await swarm.connect(per_s=FAST, count=0)
    peer = swarm._crowd.add()

    await site.figures.reach("swarm.refused", 3)

    assert peer.failures == 3
    assert node.connections == 3


async def test_churn_replaces_peers_by_others(site):
    await site.open()
    swarm = site.swarm(count=5)
    await swarm.connect(per_s=FAST)

    replaced = (await swarm.churn(per_s=100, duration_s=0.1))["replaced"]
    await site.figures.reach("handshake", 5 + replaced)

    assert 5 <= replaced <= 10
    assert (await swarm.stats())["ready"] == 5
    assert len(set(site.office.came)) == 5 + replaced
    assert site.figures.observed["reconnect"] == []


async def test_stop_leaves_nothing_behind(site):
    await site.open()
    swarm = site.swarm(count=5)
    await swarm.connect(per_s=FAST)

    assert await swarm.call("stop", {}) == {}
    for _ in range(5):
        await site.office.left.acquire()

    stats = await swarm.stats()
    assert stats["peers"] == stats["ready"] == 0


async def test_commands_come_by_name(site):
    await site.open()
    swarm = site.swarm()

    assert await swarm.call("connect", {"per_s": FAST, "count": 2}) == {"connected": 2, "failed": 0}
    with pytest.raises(Refused, match=r"idle: no command dance; there are connect, "):
        await swarm.call("dance", {})
    with pytest.raises(Refused, match=r"idle: .*unexpected keyword argument 'loudly'"):
        await swarm.call("drop", {"share": 1, "loudly": True})
    with pytest.raises(Refused, match=r'"nowhere" is no address'):
        site.swarm("nowhere")
