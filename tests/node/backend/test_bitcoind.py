"""The chain client against the embedded chain's server: the same requests that bitcoind gets."""

import asyncio

import pytest

from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.server import ChainServer, ServerOptions
from node.backend.bitcoind import Bitcoind
from node.backend.bitcoind_rpc import BitcoindRpc, cookie
from node.backend.chain_client import BlockId, ChainUnavailable, RpcError, UnspentOutput
from node.bitcoin.block import parse_block, parse_transaction, serialize_transaction
from node.bitcoin.transaction import Input, Output
from node.runtime.http_client import HttpClient

START_S = 1_700_000_000.0
P2WSH = b"\x00\x20" + bytes(31) + b"\x07"
ANCHOR = bytes.fromhex("51024e73")
FEERATE = 500


@pytest.fixture
async def server(tmp_path):
    async with ChainServer(lambda: START_S, ServerOptions(datadir=tmp_path)) as server:
        yield server


@pytest.fixture
async def bitcoind(server, tmp_path):
    async with HttpClient(server.endpoint.rpc_url) as http:
        yield Bitcoind(BitcoindRpc(http, cookie(tmp_path / ".cookie"), wallet=""))


async def test_blocks(server, bitcoind):
    chain = server.node.chain
    tip = await bitcoind.best_block()
    assert tip == BlockId(110, chain.tip.hash)
    assert await bitcoind.block_hashes([0, 110, 111]) == [chain.ledger.active[0], tip.hash, None]
    raw = await bitcoind.block(tip.hash)
    assert parse_block(raw).hash == tip.hash
    assert await bitcoind.block(bytes(32)) is None
    assert await bitcoind.block_txids(tip.hash) == chain.tip.txids
    assert await bitcoind.previous_block(tip.hash) == BlockId(109, chain.tip.previous)
    assert await bitcoind.previous_block(chain.ledger.active[0]) is None


async def test_fund_broadcast_confirm(server, bitcoind):
    funded = await bitcoind.fund(P2WSH, 100_000, FEERATE)
    tx = parse_transaction(funded.tx)
    assert tx.outputs[funded.output_index] == Output(100_000, P2WSH)
    assert abs(funded.fee_sat * 1000 / tx.weight - FEERATE) < 5
    assert await bitcoind.txout(tx.txid, funded.output_index) is None
    assert await bitcoind.send_raw_transaction(funded.tx) == tx.txid
    assert await bitcoind.send_raw_transaction(funded.tx) == tx.txid
    assert await bitcoind.txout(tx.txid, funded.output_index) == UnspentOutput(100_000, P2WSH, 0)
    assert await bitcoind.txout(tx.txid, funded.output_index, with_mempool=False) is None
    assert await bitcoind.raw_transaction(tx.txid) == funded.tx
    assert await bitcoind.mempool_spenders([tx.inputs[0].outpoint, (bytes(32), 0)]) == [tx.txid, None]
    server.node.mine()
    assert (await bitcoind.txout(tx.txid, funded.output_index)).confirmations == 1
    assert await bitcoind.send_raw_transaction(funded.tx) == tx.txid
    block_hash = server.node.chain.tip.hash
    assert await bitcoind.raw_transaction(tx.txid, block_hash) == funded.tx
    assert await bitcoind.raw_transaction(bytes(32)) is None


async def test_concurrent_funding_uses_different_coins(bitcoind):
    funded = await asyncio.gather(*(bitcoind.fund(P2WSH, 100_000 + n, FEERATE) for n in range(5)))
    coins = [i.outpoint for f in funded for i in parse_transaction(f.tx).inputs]
    assert len(set(coins)) == len(coins)
    for f in funded:
        await bitcoind.send_raw_transaction(f.tx)


async def test_unlock_gives_coins_back(bitcoind):
    balance = await bitcoind.wallet_balance()
    funded = await bitcoind.fund(P2WSH, balance - 100_000, FEERATE)
    with pytest.raises(RpcError, match="Insufficient funds"):
        await bitcoind.fund(P2WSH, 100_000, FEERATE)
    await bitcoind.unlock(funded.tx)
    await bitcoind.unlock(funded.tx)
    assert await bitcoind.fund(P2WSH, 100_000, FEERATE)


async def test_refusals_are_typed(bitcoind):
    ghost = serialize_transaction(2, [Input(b"\x11" * 32, 0)], [Output(1000, P2WSH)], 0)
    with pytest.raises(RpcError, match="bad-txns-inputs-missingorspent") as caught:
        await bitcoind.send_raw_transaction(ghost)
    assert caught.value.code == -25


async def test_add_inputs_pays_for_a_parent(server, bitcoind):
    """An anchor output, anyone's to spend, lifts a parent that pays nothing."""
    coin = next(c for c in server.node.wallets.loaded[""].spendable())
    bare = serialize_transaction(
        3, [Input(*coin.outpoint)], [Output(coin.coin.sat - 240, P2WSH), Output(240, ANCHOR)], 0
    )
    parent = await bitcoind.sign(bare, {})
    txid = parse_transaction(parent).txid
    with pytest.raises(RpcError, match="min relay fee not met"):
        await bitcoind.send_raw_transaction(parent)

    change = Output(1_000, await bitcoind.new_script())
    draft = serialize_transaction(3, [Input(txid, 1)], [change], 0)
    with pytest.raises(RpcError, match="Insufficient funds"):  # nobody knows the parent yet
        await bitcoind.add_inputs(draft, FEERATE, {(txid, 1): 165})
    for_child = next(c for c in server.node.wallets.loaded[""].spendable() if c != coin)
    child_inputs = [Input(txid, 1), Input(*for_child.outpoint)]
    paying = serialize_transaction(3, child_inputs, [Output(for_child.coin.sat - 2_000, change.script)], 0)
    child = await bitcoind.sign(paying, {(txid, 1): UnspentOutput(240, ANCHOR, 0)})
    await bitcoind.submit_package([parent, child])
    server.node.mine()
    assert await bitcoind.txout(txid, 0)
    with pytest.raises(RpcError):
        await bitcoind.submit_package([parent, child])


async def test_fee_estimates_follow_the_chain(server, bitcoind):
    assert await bitcoind.fee_estimate(6) == 250
    server.node.chain.fee_estimates[6] = 40_000
    assert await bitcoind.fee_estimate(6) == 10_000


async def test_money_moves_between_wallets(server, bitcoind):
    server.node.wallets.create("bob")
    bob = server.node.client("bob")
    await bitcoind.send_to_address(await bob.new_address(), 5_000_000, FEERATE)
    server.node.mine()
    assert await bob.wallet_balance() == 5_000_000


class Scripted:
    """A transport that fails as told, then answers."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.asked = 0

    async def post(self, path, body, headers, timeout_s):
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def rpc_over(transport, **kwargs):
    pauses: list[float] = []

    async def sleep(pause_s):
        pauses.append(pause_s)

    return BitcoindRpc(transport, lambda: ("u", "p"), sleep=sleep, **kwargs), pauses


OK = (200, b'{"id":0,"result":7,"error":null}')
WARMING_UP = (500, b'{"id":0,"result":null,"error":{"code":-28,"message":"Loading block index"}}')


async def test_patience_while_bitcoind_starts():
    refused = ConnectionRefusedError("not yet")
    transport = Scripted(refused, refused, WARMING_UP, (503, b"Work queue depth exceeded"), OK)
    rpc, pauses = rpc_over(transport)
    assert await rpc.call("getblockcount") == 7
    assert pauses == [0.1, 0.2, 0.4, 0.8]


async def test_patience_ends():
    rpc, pauses = rpc_over(Scripted(*[WARMING_UP] * 100), patience_s=5)
    with pytest.raises(ChainUnavailable, match="starting"):
        await rpc.call("getblockcount")
    assert 5 <= sum(pauses) < 8


async def test_what_may_have_happened_is_not_repeated():
    transport = Scripted(ConnectionResetError("gone"), OK)
    rpc, _ = rpc_over(transport)
    with pytest.raises(ChainUnavailable):
        await rpc.call("fundrawtransaction", "00")
    assert transport.asked == 1
    assert await rpc_over(Scripted(ConnectionResetError("gone"), OK))[0].call("getblockcount") == 7


async def test_a_timeout_is_reported():
    rpc, _ = rpc_over(Scripted(TimeoutError()))
    with pytest.raises(ChainUnavailable, match="did not answer"):
        await rpc.call("getblockcount")


@pytest.mark.parametrize("answer", [(200, b"<html>"), (200, b"[]"), (500, b""), (401, b""), (403, b"")])
async def test_answers_that_are_none(answer):
    rpc, _ = rpc_over(Scripted(answer, answer))
    with pytest.raises(ChainUnavailable):
        await rpc.call("getblockcount")


async def test_a_new_cookie_is_read_when_the_old_one_fails(server, bitcoind, tmp_path):
    await bitcoind.best_block()
    server._password = "another"
    (tmp_path / ".cookie").write_text("__cookie__:another")
    assert (await bitcoind.best_block()).height == 110


async def test_a_server_that_is_gone():
    async with HttpClient("http://127.0.0.1:1") as http:
        rpc, _ = rpc_over(http, patience_s=0)
        with pytest.raises(ChainUnavailable):
            await rpc.call("getblockcount")


async def test_batches_are_split_and_stay_in_order(bitcoind):
    hashes = await bitcoind.block_hashes([n % 111 for n in range(250)])
    assert hashes[:28] == hashes[111:139]
    assert len(hashes) == 250


async def test_the_local_client_is_the_same_client():
    node = EmbeddedNode(lambda: START_S)
    try:
        client = node.client("")
        assert (await client.best_block()).height == 110
        funded = await client.fund(P2WSH, 50_000, FEERATE)
        await client.send_raw_transaction(funded.tx)
        node.mine()
        assert not node.chain.mempool.entries
    finally:
        node.close()
