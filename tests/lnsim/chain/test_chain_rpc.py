"""The RPC surface, over HTTP as a client of bitcoind meets it."""

import asyncio
import os
import signal
import subprocess
import sys
from base64 import b64encode
from decimal import Decimal

import aiohttp
import msgspec
import pytest

from lnsim.chain.server import ChainServer, ServerOptions
from node.runtime.zmq_client import ZmqHints

START_S = 1_700_000_000.0


def basic(user, password):
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class Client:
    def __init__(self, http, url, user, password):
        self.http, self.url = http, url
        self.auth = basic(user, password)

    async def post(self, body, path="/", auth=None):
        async with self.http.post(
            self.url + path, data=body, headers={"Authorization": auth or self.auth}
        ) as response:
            text = await response.read()
            answer = msgspec.json.decode(text) if text else None
            return response.status, answer

    async def __call__(self, method, *params, wallet=None):
        path = "/" if wallet is None else f"/wallet/{wallet}"
        _, answer = await self.post(msgspec.json.encode({"id": 1, "method": method, "params": params}), path)
        if answer["error"]:
            raise LookupError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    async def code(self, method, *params):
        with pytest.raises(LookupError) as caught:
            await self(method, *params)
        return caught.value.args[0]


@pytest.fixture
async def rpc():
    async with ChainServer(lambda: START_S) as server, aiohttp.ClientSession() as http:
        yield Client(http, server.endpoint.rpc_url, server.endpoint.user, server.endpoint.password)


async def test_create_fund_sign_send_mine(rpc):
    address = await rpc("getnewaddress", "", "bech32")
    bare = await rpc("createrawtransaction", [], {address: 1.5})
    funded = await rpc("fundrawtransaction", bare, {"lockUnspents": True, "feeRate": 0.00002})
    assert len(await rpc("listlockunspent")) == 1
    signed = await rpc("signrawtransactionwithwallet", funded["hex"])
    assert signed["complete"]
    (verdict,) = await rpc("testmempoolaccept", [signed["hex"]])
    assert verdict["allowed"]
    assert verdict["fees"]["base"] == funded["fee"]
    assert abs(funded["fee"] * 1e8 / verdict["vsize"] - 2) < 0.05
    txid = await rpc("sendrawtransaction", signed["hex"])
    assert await rpc("sendrawtransaction", signed["hex"]) == txid
    assert await rpc("listlockunspent") == []
    assert (await rpc("getmempoolentry", txid))["vsize"] == verdict["vsize"]
    assert await rpc("getrawmempool") == [txid]
    (block_hash,) = await rpc("generatetoaddress", 1, address)
    block = await rpc("getblock", block_hash)
    assert block["tx"][1] == txid
    assert (await rpc("getrawtransaction", txid, True))["confirmations"] == 1
    assert (await rpc("gettransaction", txid))["blockhash"] == block_hash
    assert await rpc.code("sendrawtransaction", signed["hex"]) == -27


async def test_chain_queries_agree_with_each_other(rpc):
    info = await rpc("getblockchaininfo")
    assert (info["chain"], info["blocks"]) == ("regtest", 110)
    tip = await rpc("getbestblockhash")
    assert tip == info["bestblockhash"] == await rpc("getblockhash", 110)
    header = await rpc("getblockheader", tip)
    assert header["previousblockhash"] == await rpc("getblockhash", 109)
    raw = await rpc("getblock", tip, 0)
    assert raw.startswith(await rpc("getblockheader", tip, False))
    full = await rpc("getblock", tip, 2)
    coinbase = full["tx"][0]
    out = await rpc("gettxout", coinbase["txid"], 0)
    assert out["coinbase"]
    assert out["value"] == coinbase["vout"][0]["value"] == 50
    assert await rpc("gettxout", coinbase["txid"], 5) is None
    assert (await rpc("getindexinfo"))["txindex"]["synced"]
    assert (await rpc("getzmqnotifications"))[0]["address"].startswith("tcp://127.0.0.1:")


async def test_errors_are_bitcoinds(rpc):
    assert await rpc.code("nonsense") == -32601
    assert await rpc.code("getblockhash", 999) == -8
    assert await rpc.code("getblockhash", "x") == -3
    assert await rpc.code("getblock", "00" * 32) == -5
    assert await rpc.code("getblock", "zz") == -8
    assert await rpc.code("getrawtransaction", "11" * 32) == -5
    assert await rpc.code("sendrawtransaction", "0200") == -22
    assert await rpc.code("sendtoaddress", "nowhere", 1) == -5
    assert await rpc.code("sendtoaddress", await rpc("getnewaddress"), 1e6) == -6
    assert await rpc.code("getmempoolentry", "11" * 32) == -5
    bare = await rpc("createrawtransaction", [], {await rpc("getnewaddress"): 1e6})
    assert await rpc.code("fundrawtransaction", bare) == -4
    assert await rpc.code("fundrawtransaction", bare, {"feeRat": 1}) == -3
    ghost = [{"txid": "11" * 32, "vout": 0}]
    unsigned = await rpc("createrawtransaction", ghost, {await rpc("getnewaddress"): 1})
    assert await rpc.code("sendrawtransaction", unsigned) == -25


async def test_http_as_bitcoind_answers_it(rpc):
    status, _ = await rpc.post(b"{}", auth=basic("eve", "guess"))
    assert status == 401
    status, answer = await rpc.post(b"{not json")
    assert (status, answer["error"]["code"]) == (500, -32700)
    status, _ = await rpc.post(b'{"method":"nonsense","id":1}')
    assert status == 404
    status, answer = await rpc.post(b'{"jsonrpc":"2.0","method":"getblockcount","id":7}')
    assert (status, answer) == (200, {"jsonrpc": "2.0", "result": 110, "id": 7})
    status, answer = await rpc.post(
        b'{"jsonrpc":"2.0","method":"getblockhash","params":{"height":999},"id":8}'
    )
    assert (status, answer["error"]["code"]) == (200, -8)
    batch = b'[{"method":"getblockcount","id":1},{"method":"nonsense","id":2},3]'
    status, answers = await rpc.post(batch)
    assert status == 200
    assert [a["result"] for a in answers] == [110, None, None]
    assert [a["error"] and a["error"]["code"] for a in answers] == [None, -32601, -32600]


async def test_wallets_by_name_share_the_chain(rpc):
    await rpc("createwallet", "alice")
    assert await rpc("listwallets") == ["", "alice"]
    assert await rpc.code("getnewaddress") == -19
    address = await rpc("getnewaddress", wallet="alice")
    await rpc("sendtoaddress", address, 2, wallet="")
    assert (await rpc("getbalances", wallet="alice"))["mine"]["untrusted_pending"] == 2
    await rpc("generatetoaddress", 1, await rpc("getnewaddress", wallet=""))
    assert await rpc("getbalance", wallet="alice") == 2
    (coin,) = await rpc("listunspent", wallet="alice")
    assert (coin["address"], coin["confirmations"]) == (address, 1)
    assert (await rpc("getaddressinfo", address, wallet="alice"))["ismine"]
    assert not (await rpc("getaddressinfo", address, wallet=""))["ismine"]
    with pytest.raises(LookupError, match="does not exist"):
        await rpc("getbalance", wallet="nobody")
    await rpc("unloadwallet", "alice")
    await rpc("loadwallet", "alice")
    assert await rpc.code("loadwallet", "alice") == -35


async def test_locked_coins_are_not_chosen(rpc):
    coins = await rpc("listunspent")
    places = [{"txid": c["txid"], "vout": c["vout"]} for c in coins]
    assert await rpc("lockunspent", False, places)
    assert await rpc("listunspent") == []
    assert await rpc.code("sendtoaddress", await rpc("getnewaddress"), 1) == -6
    assert await rpc("lockunspent", True, places[:1])
    await rpc("sendtoaddress", await rpc("getnewaddress"), 1)
    assert await rpc.code("lockunspent", True, [{"txid": "11" * 32, "vout": 0}]) == -8


async def test_funding_options(rpc):
    address, change = await rpc("getnewaddress"), await rpc("getrawchangeaddress")
    bare = await rpc("createrawtransaction", [], [{address: 1}, {"data": "c0ffee"}])
    options = {"changeAddress": change, "changePosition": 1, "fee_rate": 5}
    funded = await rpc("fundrawtransaction", bare, options)
    assert funded["changepos"] == 1
    tx = await rpc("decoderawtransaction", funded["hex"])
    assert tx["vout"][1]["scriptPubKey"]["address"] == change
    assert tx["vout"][2]["scriptPubKey"]["type"] == "nulldata"
    less = await rpc("fundrawtransaction", bare, {"subtractFeeFromOutputs": [0], "feeRate": "0.00005"})
    paid = (await rpc("decoderawtransaction", less["hex"]))["vout"]
    assert any(abs(output["value"] - (1 - less["fee"])) < 1e-9 for output in paid)


async def test_fee_estimates_can_be_set(rpc):
    assert (await rpc("estimatesmartfee", 6))["feerate"] == 0.00001
    await rpc("setfeeestimate", 2, 0.0005)
    await rpc("setfeeestimate", 144, 0.00002)
    assert (await rpc("estimatesmartfee", 6))["feerate"] == 0.0005
    assert (await rpc("estimatesmartfee", 1008))["feerate"] == 0.00002


async def test_generateblock_and_submitblock(rpc):
    address = await rpc("getnewaddress")
    txid = await rpc("sendtoaddress", address, 1)
    empty = await rpc("generateblock", address, [])
    assert len((await rpc("getblock", empty["hash"]))["tx"]) == 1
    assert (await rpc("gettxspendingprevout", await spent_by(rpc, txid)))[0]["spendingtxid"] == txid
    made = await rpc("generateblock", address, [txid], False)
    assert await rpc("submitblock", made["hex"]) is None
    assert await rpc("submitblock", made["hex"]) == "duplicate"
    assert await rpc("getrawmempool") == []
    await rpc("invalidateblock", made["hash"])
    assert await rpc("getrawmempool") == [txid]
    assert {tip["status"] for tip in await rpc("getchaintips")} == {"active", "valid-fork"}


async def spent_by(rpc, txid):
    tx = await rpc("getrawtransaction", txid, 1)
    return [{"txid": i["txid"], "vout": i["vout"]} for i in tx["vin"]]


async def test_submitpackage_reports_each_transaction(rpc):
    address = await rpc("getnewaddress")
    (coin, *_) = await rpc("listunspent")
    place = {"txid": coin["txid"], "vout": coin["vout"]}
    parent = await signed(rpc, [place], {address: 50})
    decoded = await rpc("decoderawtransaction", parent)
    output = {"txid": decoded["txid"], "vout": 0}
    known = [{**output, "scriptPubKey": decoded["vout"][0]["scriptPubKey"]["hex"], "amount": 50}]
    child = await signed(rpc, [output], {address: 49.999}, known)
    with pytest.raises(LookupError, match="min relay fee not met, 0 < "):
        await rpc("sendrawtransaction", parent)
    answer = await rpc("submitpackage", [parent, child])
    assert answer["package_msg"] == "success"
    first = answer["tx-results"][decoded["hash"]]
    assert first["fees"]["base"] == 0
    assert len(first["fees"]["effective-includes"]) == 2


async def signed(rpc, inputs, outputs, known=None):
    raw = await rpc("createrawtransaction", inputs, outputs)
    answer = await rpc("signrawtransactionwithwallet", raw, known)
    assert answer["complete"], answer
    return answer["hex"]


async def test_unsigned_inputs_are_reported(rpc):
    await rpc("createwallet", "other")
    (coin, *_) = await rpc("listunspent", wallet="")
    place = {"txid": coin["txid"], "vout": coin["vout"]}
    raw = await rpc("createrawtransaction", [place], {coin["address"]: 1})
    answer = await rpc("signrawtransactionwithwallet", raw, wallet="other")
    assert not answer["complete"]
    assert answer["errors"][0]["txid"] == coin["txid"]


async def test_absurd_fees_need_consent(rpc):
    (coin, *_) = await rpc("listunspent")
    raw = await signed(rpc, [{"txid": coin["txid"], "vout": coin["vout"]}], {coin["address"]: 40})
    assert await rpc.code("sendrawtransaction", raw) == -25
    await rpc("sendrawtransaction", raw, 0)


async def test_cookie_file(tmp_path):
    options = ServerOptions(datadir=tmp_path, blocks=1)
    async with ChainServer(lambda: START_S, options) as server, aiohttp.ClientSession() as http:
        user, _, password = (tmp_path / ".cookie").read_text().partition(":")
        assert user == "__cookie__"
        assert await Client(http, server.endpoint.rpc_url, user, password)("getblockcount") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
async def test_the_command_runs_mines_and_stops_cleanly(tmp_path):
    code = "import typer; from lnsim.chain.command import chain; typer.run(chain)"
    arguments = ["--datadir", str(tmp_path), "--rpcuser", "u", "--rpcpassword", "p", "--blocks", "3"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, "--mine-every", "0.05", stdout=subprocess.PIPE
    )
    try:
        endpoint = msgspec.json.decode(await process.stdout.readline())
        async with aiohttp.ClientSession() as http:
            client = Client(http, endpoint["rpc_url"], "u", "p")
            hints = ZmqHints(endpoint["zmq"])
            while await hints.next() is not None:
                pass  # a coinbase; None is the block itself
            hints.close()
            assert await client("getblockcount") > 3
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert await process.wait() == 0
    assert list(tmp_path.iterdir()) == []


def test_amounts_are_exact():
    from lnsim.chain.rpc.values import amount, sat_of

    for sat in (0, 1, 10, 123_456_789, 2_099_999_999_999_999):
        assert sat_of(amount(sat)) == sat
        assert sat_of(str(amount(sat))) == sat
        assert sat_of(Decimal(repr(float(amount(sat))))) == sat


async def test_a_partially_signed_transaction(rpc):
    address = await rpc("getnewaddress")
    made = await rpc("walletcreatefundedpsbt", [], {address: 2}, 0, {"lockUnspents": True, "fee_rate": 3})
    assert not (await rpc("walletprocesspsbt", made["psbt"], False))["complete"]
    half = await rpc("walletprocesspsbt", made["psbt"], True, "ALL", True, False)
    assert not half["complete"]
    combined = await rpc("combinepsbt", [made["psbt"], half["psbt"]])
    done = await rpc("finalizepsbt", combined)
    assert done["complete"]
    assert done["hex"] == (await rpc("walletprocesspsbt", made["psbt"]))["hex"]
    assert (await rpc("testmempoolaccept", [done["hex"]]))[0]["fees"]["base"] == made["fee"]
    await rpc("sendrawtransaction", done["hex"])
    assert await rpc.code("finalizepsbt", "nonsense") == -22
