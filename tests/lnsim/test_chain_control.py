"""One control of the chain, on the embedded chain in process and over its server."""

import pytest

from lnsim.api_client import CallFailed, ChainRpc
from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.model import COIN
from lnsim.chain.server import ChainServer
from lnsim.chain_control import ChainControl, embedded, nobody, over_rpc

START_S = 1_700_000_000.0
BLOCKS = 110
FEE_RATE_BTC = "0.00010000"  # per kvB


class InProcess:
    def __init__(self, node):
        self.node, self.chain = node, embedded(node)

    async def call(self, method, *params):
        return await self.chain._call("", method, *params)


class OverRpc:
    def __init__(self, server):
        end = server.endpoint
        self.node = server.node
        self.chain = over_rpc(end.rpc_url, end.user, end.password)
        self.call = ChainRpc(end.rpc_url, end.user, end.password, "").call


@pytest.fixture(params=["in process", "over rpc"])
async def place(request):
    if request.param == "in process":
        node = EmbeddedNode(lambda: START_S)
        yield InProcess(node)
        node.close()
    else:
        async with ChainServer(lambda: START_S) as server:
            yield OverRpc(server)


async def spend(place) -> tuple[str, int]:
    """A transaction of the wallet to itself: its txid and its fee."""
    address = await place.call("getnewaddress")
    bare = await place.call("createrawtransaction", [], {address: 1.5})
    funded = await place.call("fundrawtransaction", bare, {"feeRate": FEE_RATE_BTC})
    signed = await place.call("signrawtransactionwithwallet", funded["hex"])
    return await place.call("sendrawtransaction", signed["hex"]), round(funded["fee"] * COIN)


async def test_mining_pays_no_wallet(place):
    chain = place.chain
    before_msat = await chain.wallet_msat("")
    assert before_msat == BLOCKS * 50 * COIN * 1_000, "immature coins are money too"
    assert await chain.mine(3) == await chain.height() == BLOCKS + 3
    assert await chain.wallet_msat("") == before_msat
    assert await chain.mine(0) == BLOCKS + 3


async def test_a_wallet_loses_its_fees_and_the_blocks_know_them(place):
    chain = place.chain
    before_msat = await chain.wallet_msat("")
    _, first_sat = await spend(place)
    assert await chain.wallet_msat("") == before_msat - 1_000 * first_sat, "unconfirmed coins count"
    assert await chain.mine(1) == BLOCKS + 1
    _, second_sat = await spend(place)
    await chain.mine(2)
    assert await chain.fees_sat(BLOCKS + 1, BLOCKS + 3) == first_sat + second_sat
    assert await chain.fees_sat(BLOCKS + 2, BLOCKS + 2) == second_sat
    assert await chain.fees_sat(1, BLOCKS) == 0
    assert await chain.wallet_msat("") == before_msat - 1_000 * (first_sat + second_sat)


async def test_the_subsidy_halves_and_fees_do_not(place):
    await place.chain.mine(50)
    assert await place.chain.fees_sat(1, BLOCKS + 50) == 0


async def test_reorgs_lose_no_transaction_and_do_not_collide(place):
    chain, ledger = place.chain, place.node.chain.ledger
    txid, fee_sat = await spend(place)
    await chain.mine(2)
    for turn in range(4):
        height, tip = await chain.height(), ledger.tip.hash
        assert await chain.reorg(2) == height + 1
        assert not ledger.is_active(ledger.blocks[tip]), turn
        assert bytes.fromhex(txid)[::-1] in ledger.index, "it was mined again"
        assert not place.node.chain.mempool.entries
    assert await chain.fees_sat(BLOCKS + 1, await chain.height()) == fee_sat


async def test_a_reorg_is_of_blocks_that_there_are(place):
    for depth in (0, -1, BLOCKS + 1):
        with pytest.raises(CallFailed, match="depth"):
            await place.chain.reorg(depth)


async def test_estimates_are_set_and_given_back(place):
    chain, embedded_chain = place.chain, place.node.chain
    await place.call("setfeeestimate", 6, "0.00002")
    before = [embedded_chain.fee_estimate(target) for target in range(1, 200)]
    await chain.set_feerate(2_500)
    await chain.set_feerate(5_000)
    assert {embedded_chain.fee_estimate(target) for target in range(1, 200)} == {20_000}
    await chain.set_feerate(None)
    assert [embedded_chain.fee_estimate(target) for target in range(1, 200)] == before


async def test_what_the_chain_says_no_to(place):
    with pytest.raises(CallFailed, match="wallet does not exist"):
        await place.chain.wallet_msat("nobody's")


async def test_a_bitcoind_can_not_be_told_its_estimates():
    async def bitcoind(wallet, method, *params):
        if method == "estimatesmartfee":
            return {"errors": ["Insufficient data or no feerate found"], "blocks": 0}
        raise CallFailed(f"{method}: Method not found")

    with pytest.raises(CallFailed, match="embedded chain"):
        await ChainControl(bitcoind).set_feerate(1_000)


def test_nobody_has_an_address_for_every_lost_tip():
    assert nobody(b"\1" * 32) == nobody(b"\1" * 32) != nobody(b"\2" * 32)
    assert nobody(b"\1" * 32).startswith("bcrt1q")
