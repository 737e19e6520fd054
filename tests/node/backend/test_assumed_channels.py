"""assume_channels_valid: strangers' channels are believed, and the chain is not asked about them; about ours it is."""

import pytest
from backend_bench import Bench

from lnsim.graph_generator import TIMESTAMP, generate, message_of
from node.gossip.graph import ChannelAdded
from node.gossip.validation import Verdict
from node.link import frames
from node.link import messages as lm

CHANNELS = 12


class Counting:
    """Counts what is asked of the chain about blocks and outputs."""

    def __init__(self, client) -> None:
        self._client = client
        self.asked = []

    def __getattr__(self, name):
        if name in {"txout", "block_txids", "raw_transaction"}:
            self.asked.append(name)
        return getattr(self._client, name)


async def begin(directory, chain, *, assumes: bool):
    bench = Bench(directory, chain, assume_channels_valid=assumes)
    client = Counting(chain.client(""))
    bench.chain = Chain(chain, client)
    await bench.start()
    bench.runtime.time_s = float(TIMESTAMP)
    return bench, client


class Chain:
    """The embedded chain, with a client that counts."""

    def __init__(self, node, client) -> None:
        self._node, self._client = node, client

    def client(self, wallet):
        return self._client

    def __getattr__(self, name):
        return getattr(self._node, name)


async def offer(bench, raws) -> list[int]:
    frontend = bench.frontend()
    for number, raw in enumerate(raws):
        frontend.raw(frames.offer(number, 1, raw))
    await bench.settle()
    frontend.take()
    answers = {n: v for message in frontend.heard(lm.Verdicts) for n, v in message.verdicts}
    return [answers[number] for number in range(len(raws))]


async def test_channels_are_believed_kept_and_not_watched(chain, tmp_path):
    bench, client = await begin(tmp_path / "node", chain, assumes=True)
    deltas = list(generate(5, channels=CHANNELS, nodes=6))
    channels = [message_of(delta) for delta in deltas if isinstance(delta, ChannelAdded)]
    others = [message_of(delta) for delta in deltas if not isinstance(delta, ChannelAdded)]
    assert set(await offer(bench, channels)) == {Verdict.ACCEPTED}
    assert set(await offer(bench, others)) == {Verdict.ACCEPTED}
    await bench.drop()
    for _ in range(2):  # what was stored is believed again
        await bench.start()
        bench.runtime.time_s = float(TIMESTAMP)
        chain.mine(1)
        await bench.until(lambda: bench.backend.chain.height == chain.chain.height)
        await bench.settle()
        graph = bench.backend.graph
        assert (len(graph.channels), len(graph.nodes), graph.spent) == (CHANNELS, 6, {})
        assert not bench.runtime.failures
        await bench.drop()
    assert client.asked == []


async def test_a_channel_of_ours_is_looked_up_all_the_same(chain, tmp_path):
    bench, _ = await begin(tmp_path / "node", chain, assumes=True)
    raw = next(message_of(delta) for delta in generate(5, channels=CHANNELS, nodes=6))
    forged = raw[:300] + bench.backend.node_id + raw[333:]
    assert await offer(bench, [forged]) == [Verdict.NOT_ON_CHAIN]
    await bench.drop()


@pytest.mark.parametrize("assumes", [True, False])
async def test_it_is_off_unless_asked_for(chain, tmp_path, assumes):
    bench, _ = await begin(tmp_path / "node", chain, assumes=assumes)
    raw = next(message_of(delta) for delta in generate(5, channels=CHANNELS, nodes=6))
    assert await offer(bench, [raw]) == [Verdict.ACCEPTED if assumes else Verdict.NOT_ON_CHAIN]
    await bench.drop()
