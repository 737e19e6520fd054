"""A worker in this process: names, refusals, measurements."""

import asyncio
from pathlib import Path

import pytest

from lnsim.api_client import CallFailed
from lnsim.chain.embedded import EmbeddedNode
from lnsim.metrics.recorder import Snapshot
from lnsim.worker.worker import WORKER, Worker
from node.runtime.runtime import SystemRuntime

HUB = "hub"
CHAIN_HASH = "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f"


def fail(task, error):
    raise AssertionError(task) from error


@pytest.fixture
async def worker():
    chain = EmbeddedNode(lambda: 1_700_000_000)
    made = Worker(lambda _: SystemRuntime(fail), lambda _: (chain.client(), None))
    yield made
    await made.stop()


def config(directory: Path, name: str) -> dict:
    return {"listen": "127.0.0.1:0", "backend": {"data_dir": str(directory / name), "alias": name}}


async def start(worker: Worker, directory: Path, name: str) -> dict:
    return await worker.call(WORKER, "start_node", {"name": name, "config": config(directory, name)})


async def snapshot(worker: Worker) -> Snapshot:
    return Snapshot.from_plain((await worker.call(WORKER, "stats", {}))["snapshot"])


async def test_nodes_of_one_worker_connect_and_answer_by_name(worker, tmp_path):
    one, two = [await start(worker, tmp_path, name) for name in ("one", "two")]
    await worker.call("two", "connect", {"node_id": one["node_id"], "address": one["listen"]})
    assert [peer["node_id"] for peer in await worker.call("one", "peers", {})] == [two["node_id"]]
    assert (await worker.call("two", "getinfo", {}))["alias"] == "two"
    assert (await worker.call(WORKER, "stats", {}))["nodes"] == 2


@pytest.mark.parametrize(
    ("target", "name", "arguments", "words"),
    [
        ("nobody", "getinfo", {}, "nobody: getinfo: nobody of that name"),
        (WORKER, "dance", {}, "dance: no such command"),
        ("one", "_run", {}, "no such command"),
        ("one", "connect", {"node": 1}, "unexpected keyword"),
        ("one", "connect", {"node_id": "zz", "address": ""}, "one: connect: "),
        (WORKER, "start_node", {"name": "two", "config": {"alias": "x"}}, "unknown field `alias`"),
        (WORKER, "start_node", {"name": "one", "config": {}}, '"one" is taken'),
    ],
)
async def test_what_is_refused_has_words(worker, tmp_path, target, name, arguments, words):
    await start(worker, tmp_path, "one")
    with pytest.raises(CallFailed) as failure:
        await worker.call(target, name, arguments)
    assert words in str(failure.value)


async def test_payments_come_back_with_their_latency(worker, tmp_path):
    one, _ = [await start(worker, tmp_path, name) for name in ("one", "two")]
    paid = await worker.call("two", "keysend", {"node_id": one["node_id"], "amount_msat": 1_000})
    assert paid["status"] == "failed"
    assert paid["latency_ms"] > 0


async def test_the_way_back_to_the_node_under_test_is_timed(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("lnsim.worker.worker.WATCH_INTERVAL_S", 0.0)  # the test's sessions are short
    hub, _ = [await start(worker, tmp_path, name) for name in (HUB, "one")]
    to_hub = {"node_id": hub["node_id"], "address": hub["listen"]}
    await worker.call(WORKER, "watch", {"hub_id": hub["node_id"]})
    await worker.call("one", "connect", to_hub)
    await worker.call("one", "disconnect", {"node_id": hub["node_id"]})
    assert "reconnect" not in (await snapshot(worker)).histograms
    await worker.call("one", "connect", to_hub)
    async with asyncio.timeout(10):
        while "reconnect" not in (await snapshot(worker)).histograms:
            await worker.call("one", "peers", {})
    assert (await snapshot(worker)).histograms["reconnect"].histogram.count == 1


async def test_a_group_of_light_peers_takes_the_commands_of_a_swarm(worker, tmp_path):
    hub = await start(worker, tmp_path, HUB)
    swarm = {"hub_id": hub["node_id"], "addresses": [hub["listen"]], "count": 3, "chain_hash": CHAIN_HASH}
    await worker.call(WORKER, "start_swarm", {"group": "crowd", "seed": "1", "config": swarm})
    assert await worker.call("crowd", "connect", {"per_s": 1_000}) == {"connected": 3, "failed": 0}
    assert (await worker.call(WORKER, "stats", {}))["swarms"]["crowd"]["ready"] == 3
    with pytest.raises(CallFailed, match="no command fly"):
        await worker.call("crowd", "fly", {})
