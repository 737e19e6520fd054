"""Following the chain and watching it: reorgs, restarts, and notices that never come."""

import asyncio

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.server import ChainServer
from node.backend.block_follower import BlockConnected, BlockDisconnected, BlockFollower
from node.backend.chain_client import BlockId, ChainUnavailable, RpcError
from node.backend.chain_watcher import ChainWatcher
from node.backend.channel_lookup import ChannelLookup, FundingOutput
from node.backend.watches import Confirmed, NewTip, Spent, Unconfirmed, Unspent
from node.bitcoin.block import parse_transaction, serialize_transaction
from node.bitcoin.transaction import Input, Output
from node.errors import Misconfigured
from node.runtime.http_client import HttpClient
from node.runtime.zmq_client import ZmqHints

START_S = 1_700_000_000.0
POLL_S = 0.002  # the local chain answers in microseconds
NEVER_S = 3600.0
DEADLINE_S = 20.0
P2WSH = b"\x00\x20" + bytes(31) + b"\x07"
FEERATE = 500


@pytest.fixture
def node():
    node = EmbeddedNode(lambda: START_S)
    yield node
    node.close()


def tip_of(node) -> BlockId:
    return BlockId(node.chain.height, node.chain.tip.hash)


class Watch:
    """A watcher whose news a test reads one by one."""

    def __init__(self, node, start=None, hints=None, poll_s=POLL_S, client=None):
        self.watcher = ChainWatcher(client or node.client(""), start or tip_of(node), poll_s, hints)
        self.stream = self.watcher.events()

    async def next(self, kind=None):
        """The next news of a kind (any but tips, unless asked for)."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                news = await anext(self.stream)
                if isinstance(news, kind) if kind else not isinstance(news, NewTip):
                    return news

    async def tip(self, height):
        while (await self.next(NewTip)).height != height:
            pass


async def funded(node, sat=100_000):
    client = node.client("")
    made = await client.fund(P2WSH, sat, FEERATE)
    txid = await client.send_raw_transaction(made.tx)
    return txid, made


def respend(node, made, fee_sat):
    """The wallet's coin of a transaction, spent once more: a conflict."""
    wallet = node.wallets.loaded[""]
    tx = parse_transaction(made.tx)
    raw = serialize_transaction(
        2,
        [Input(*tx.inputs[0].outpoint, 0xFFFFFFFD)],
        [Output(50 * 10**8 - fee_sat, wallet.keys.new_script(change=False))],
        0,
    )
    return parse_transaction(wallet.sign(raw, {}))


async def test_the_follower_walks_forward_and_back(node):
    follower = BlockFollower(node.client(""), BlockId(0, node.chain.ledger.active[0]))
    events = [event async for event in follower.advance()]
    assert [event.height for event in events] == list(range(1, 111))
    assert follower.tip == tip_of(node)
    old = node.mine(3)
    assert [e.height async for e in follower.advance()] == [111, 112, 113]
    node.chain.invalidate(old[1])
    node.mine(3)
    steps = [(type(e), e.height) async for e in follower.advance()]
    assert steps == [
        (BlockDisconnected, 113),
        (BlockDisconnected, 112),
        (BlockConnected, 112),
        (BlockConnected, 113),
        (BlockConnected, 114),
    ]
    node.chain.invalidate(node.chain.ledger.active[110])  # now the chain is shorter than where we are
    steps = [(type(e), e.height) async for e in follower.advance()]
    assert steps == [(BlockDisconnected, height) for height in (114, 113, 112, 111, 110)]
    assert follower.tip == tip_of(node)


async def test_the_follower_survives_a_reorg_between_two_steps(node):
    follower = BlockFollower(node.client(""), tip_of(node))
    old = node.mine(5)
    seen = []
    async for event in follower.advance():
        seen.append((type(event), event.height))
        if event.height == 113 and len(seen) == 3:
            node.chain.invalidate(old[1])
            node.mine(1)
    assert seen[3:] == [(BlockDisconnected, 113), (BlockDisconnected, 112), (BlockConnected, 112)]
    assert follower.tip == tip_of(node)


async def test_another_chain_is_told_apart(node):
    follower = BlockFollower(node.client(""), BlockId(110, b"\x77" * 32))
    with pytest.raises(ChainUnavailable, match="does not know block"):
        await anext(follower.advance())


@settings(max_examples=15, deadline=None)
@given(moves=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=6))
async def test_wherever_the_chain_goes_the_events_lead_there(moves):
    """Replaying the events on a list of hashes gives the active chain."""
    node = EmbeddedNode(lambda: START_S, blocks=3)
    try:
        follower = BlockFollower(node.client(""), BlockId(0, node.chain.ledger.active[0]))
        replayed = [node.chain.ledger.active[0]]
        for back, forward in moves:
            if 0 < back <= node.chain.height:
                node.chain.invalidate(node.chain.ledger.active[-back])
            node.mine(forward)
            async for event in follower.advance():
                if isinstance(event, BlockConnected):
                    assert event.block.previous == replayed[-1]
                    replayed.append(event.block.hash)
                else:
                    assert replayed.pop() == event.hash
            assert replayed == node.chain.ledger.active
    finally:
        node.close()


async def test_confirmations_at_the_depth_asked_for(node):
    txid, made = await funded(node)
    watch = Watch(node)
    watch.watcher.watch_confirmed("one", txid=txid, min_depth=1, since_height=0)
    watch.watcher.watch_confirmed("three", script=P2WSH, min_depth=3, since_height=0)
    node.mine()
    assert await watch.next() == Confirmed("one", 111, 1, made.tx, txid)
    node.mine()
    await watch.tip(112)
    node.mine()
    assert await watch.next() == Confirmed("three", 111, 1, made.tx, txid)


async def test_a_reorg_takes_a_confirmation_back_and_gives_it_again(node):
    txid, _ = await funded(node)
    watch = Watch(node)
    watch.watcher.watch_confirmed("funding", txid=txid, min_depth=2, since_height=111)
    node.mine(2)
    assert (await watch.next()).height == 111
    node.chain.invalidate(node.chain.ledger.active[111])
    assert await watch.next() == Unconfirmed("funding")
    node.chain.mine(node.miner_script, raws=[])
    node.mine(2)
    assert (await watch.next()).height == 112


async def test_a_spend_is_told_from_the_mempool_and_from_the_block(node):
    _, made = await funded(node)
    spender = parse_transaction(made.tx)
    watch = Watch(node)
    outpoint = spender.inputs[0].outpoint
    watch.watcher.watch_spent("coin", *outpoint, since_height=111)
    assert await watch.next() == Spent("coin", made.tx, spender.txid, None)
    node.mine()
    assert await watch.next() == Spent("coin", made.tx, spender.txid, 111)
    node.chain.invalidate(node.chain.tip.hash)
    assert await watch.next() == Unspent("coin")
    assert await watch.next() == Spent("coin", made.tx, spender.txid, None)


async def test_a_replaced_spend_is_told_again(node):
    _, made = await funded(node)
    watch = Watch(node)
    watch.watcher.watch_spent("coin", *parse_transaction(made.tx).inputs[0].outpoint, since_height=111)
    assert (await watch.next()).tx == made.tx
    other = respend(node, made, 50_000)
    node.chain.submit(other.raw)
    assert (await watch.next()).txid == other.txid
    node.mine()
    assert await watch.next() == Spent("coin", other.raw, other.txid, 111)


async def test_watches_registered_after_the_fact_look_back(node):
    """What a backend does on restart: it names the height from which to look."""
    start = tip_of(node)
    txid, made = await funded(node)
    node.mine(4)
    watch = Watch(node, start=start)
    watch.watcher.watch_confirmed("early", txid=txid, min_depth=3, since_height=0)
    assert (await watch.next()).height == 111
    outpoint = parse_transaction(made.tx).inputs[0].outpoint
    watch.watcher.watch_confirmed("late", txid=txid, min_depth=3, since_height=105)
    watch.watcher.watch_confirmed("too late", txid=txid, min_depth=1, since_height=112)
    watch.watcher.watch_spent("late coin", *outpoint, since_height=105)
    news = [await watch.next(), await watch.next()]
    assert {n.key: n.height for n in news} == {"late": 111, "late coin": 111}


async def test_forgotten_watches_are_silent(node):
    txid, made = await funded(node)
    watch = Watch(node)
    outpoint = parse_transaction(made.tx).inputs[0].outpoint
    watch.watcher.watch_spent("gone", *outpoint, since_height=111)
    watch.watcher.watch_confirmed("gone too", txid=txid, min_depth=1, since_height=111)
    watch.watcher.watch_confirmed("kept", txid=txid, min_depth=1, since_height=111)
    await watch.next(Spent)
    watch.watcher.forget("gone")
    watch.watcher.forget("gone too")
    node.mine()
    assert (await watch.next()).key == "kept"


class Deaf:
    """Hints that never come."""

    async def next(self):
        await asyncio.Event().wait()


async def test_lost_notices_cost_time_only(node):
    txid, made = await funded(node)
    watch = Watch(node, hints=Deaf())
    watch.watcher.watch_spent("coin", *parse_transaction(made.tx).inputs[0].outpoint, since_height=111)
    watch.watcher.watch_confirmed("funding", txid=txid, min_depth=1, since_height=111)
    assert (await watch.next()).height is None
    node.mine()
    news = [await watch.next(), await watch.next()]
    assert {n.key for n in news} == {"coin", "funding"}


async def test_hints_make_polling_unnecessary(node):
    hints = node.hints()
    watch = Watch(node, hints=hints, poll_s=NEVER_S)
    for c in node.wallets.loaded[""].spendable():
        watch.watcher.watch_spent(c.outpoint, *c.outpoint, since_height=111)
    node.mine()
    await watch.tip(111)
    txid, _ = await funded(node)
    spent = await watch.next()
    assert (spent.txid, spent.height) == (txid, None)
    assert spent.key in [i.outpoint for i in parse_transaction(spent.tx).inputs]
    node.mine()
    assert (await watch.next()).height == 112
    hints.close()


async def test_over_http_and_zmq():
    async with ChainServer(lambda: START_S) as server, HttpClient(server.endpoint.rpc_url) as http:
        from node.backend.bitcoind import Bitcoind
        from node.backend.bitcoind_rpc import BitcoindRpc

        node = server.node
        client = Bitcoind(BitcoindRpc(http, lambda: (server.endpoint.user, server.endpoint.password)))
        hints = ZmqHints(server.endpoint.zmq)
        watch = Watch(node, hints=hints, client=client, poll_s=0.5)
        txid, made = await funded(node)
        watch.watcher.watch_spent("coin", *parse_transaction(made.tx).inputs[0].outpoint, since_height=0)
        watch.watcher.watch_confirmed("funding", txid=txid, min_depth=2, since_height=0)
        assert (await watch.next()).txid == txid
        node.mine(2)
        assert {(await watch.next()).key, (await watch.next()).key} == {"coin", "funding"}
        await watch.stream.aclose()
        hints.close()


class Flaky:
    """A client that fails every third call."""

    def __init__(self, client):
        self.client = client
        self.calls = 0

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.calls += 1
            if self.calls % 3 == 0:
                raise ChainUnavailable("flaky")
            return await getattr(self.client, name)(*args, **kwargs)

        return call


async def test_an_unreachable_chain_is_asked_again(node):
    txid, _ = await funded(node)
    watch = Watch(node, client=Flaky(node.client("")))
    watch.watcher.watch_confirmed("funding", txid=txid, min_depth=3, since_height=100)
    node.mine(3)
    assert (await watch.next()).key == "funding"


async def test_lookup_of_a_channel(node):
    client = node.client("")
    lookup = ChannelLookup(client)
    txid, made = await funded(node)
    node.mine()
    vout = made.output_index
    scid = 111 << 40 | 1 << 16 | vout
    assert await lookup.lookup_channel(scid) == FundingOutput(txid, vout, 100_000, P2WSH, unspent=True)
    assert await lookup.lookup_channel(scid + 2) is None  # no such output
    assert await lookup.lookup_channel(111 << 40 | 2 << 16) is None  # no such transaction
    assert await lookup.lookup_channel(500 << 40 | 1 << 16) is None  # no such block

    change = 1 - vout
    wallet = node.wallets.loaded[""]
    raw = serialize_transaction(
        2, [Input(txid, change)], [Output(10_000, wallet.keys.new_script(change=False))], 0
    )
    await client.rpc.call("sendrawtransaction", wallet.sign(raw, {}).hex(), 0)
    assert (await lookup.lookup_channel(111 << 40 | 1 << 16 | change)).unspent  # the mempool does not count
    node.mine()
    assert not (await lookup.lookup_channel(111 << 40 | 1 << 16 | change)).unspent
    node.chain.invalidate(node.chain.ledger.active[111])
    node.chain.mine(node.miner_script, raws=[])
    assert await lookup.lookup_channel(scid) is None


async def test_a_watch_may_leave_the_mempool_alone(node):
    _, made = await funded(node)
    watch = Watch(node, hints=node.hints())
    outpoint = parse_transaction(made.tx).inputs[0].outpoint
    watch.watcher.watch_spent("public", *outpoint, since_height=111, mempool=False)
    await funded(node)
    node.mine()
    assert (await watch.next()).height == 111


@pytest.mark.parametrize("parts", [[b"rawtx"], [b"hashblock"], [b"rawtx", b"no transaction", b""]])
async def test_a_notice_that_is_none_is_a_reason_to_look_and_no_more(node, parts):
    """Whoever listens on that port may not be bitcoind."""
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        hints = ZmqHints(f"tcp://127.0.0.1:{port}")
        watch = Watch(node, hints=hints, poll_s=NEVER_S)
        news = asyncio.ensure_future(watch.next(NewTip))
        node.mine()
        async with asyncio.timeout(DEADLINE_S):
            while not news.done():  # the subscription takes a moment, and what is said before is lost
                publisher.send_multipart(parts)
                publisher.send_multipart([b"hashblock", bytes(32), b""])
                await asyncio.wait((news,), timeout=0.01)
        assert news.result().height == node.chain.height
        await watch.stream.aclose()
        hints.close()


def test_an_endpoint_that_is_none_is_named():
    with pytest.raises(Misconfigured, match=r"bitcoind\.zmq: tcp://nowhere: .*say tcp://HOST:PORT"):
        ZmqHints("tcp://nowhere")


class Refusing:
    """Answers at once, and never what is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    async def block_hashes(self, heights):
        self.asked += 1
        raise RpcError(-1, "Block not available (pruned data)")

    block = block_hashes


async def _registering(watch, client):
    """What is new is registered while the chain refuses."""
    news = asyncio.ensure_future(anext(watch.stream))
    while not client.asked:  # noqa: ASYNC110 - of a fake, which sets no event
        await asyncio.sleep(0)
    watch.watcher.watch_confirmed("key", min_depth=1, since_height=0, txid=bytes(32))
    await news


async def test_a_chain_that_refuses_is_not_asked_without_pause(node):
    """Not even while something new is to be watched."""
    client = Refusing()
    watch = Watch(node, client=client, poll_s=0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_registering(watch, client), 0.3)
    assert 2 <= client.asked <= 8
    assert watch.watcher.failure == "Block not available (pruned data)"
