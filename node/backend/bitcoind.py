"""bitcoind as the backend's chain and wallet."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from node.backend.bitcoind_rpc import BitcoindRpc, Reply, result_of
from node.backend.chain_client import (
    BlockId,
    ChainState,
    FundedTransaction,
    Outpoint,
    RpcError,
    UnspentOutput,
)
from node.bitcoin.block import parse_transaction, serialize_transaction
from node.bitcoin.transaction import Output

COIN = 100_000_000
NOT_FOUND = (-5, -8)  # no such block or transaction; a height above the tip
ALREADY_IN_CHAIN = -27
VERIFY_REJECTED = -26
PACKAGE_REFUSED = -25
WEIGHT_PER_VBYTE = 4
FUNDING_VERSION = 2


class Bitcoind:
    """A ChainClient over bitcoind's RPC (Bitcoin Core 28 or later); see the protocol for each contract."""

    def __init__(self, rpc: BitcoindRpc) -> None:
        self.rpc = rpc

    async def best_block(self) -> BlockId:
        info = await self.rpc.call("getblockchaininfo")
        return BlockId(info["blocks"], _hash(info["bestblockhash"]))

    async def state(self) -> ChainState:
        info = await self.rpc.call("getblockchaininfo")
        return ChainState(
            tip=BlockId(info["blocks"], _hash(info["bestblockhash"])),
            headers=info["headers"],
            time_s=info["time"],
            downloading=info["initialblockdownload"],
            pruned_below=info.get("pruneheight", 0) if info["pruned"] else None,
        )

    async def block_hashes(self, heights: Sequence[int]) -> list[bytes | None]:
        replies = await self.rpc.batch([("getblockhash", [height]) for height in heights])
        return [None if (found := _found(reply)) is None else _hash(found) for reply in replies]

    async def block(self, block_hash: bytes) -> bytes | None:
        found = await self._look("getblock", _show(block_hash), 0)
        return None if found is None else bytes.fromhex(found)

    async def block_txids(self, block_hash: bytes) -> tuple[bytes, ...] | None:
        found = await self._look("getblock", _show(block_hash), 1)
        return None if found is None else tuple(_hash(txid) for txid in found["tx"])

    async def previous_block(self, block_hash: bytes) -> BlockId | None:
        found = await self._look("getblockheader", _show(block_hash), True)
        if found is None or "previousblockhash" not in found:
            return None
        return BlockId(found["height"] - 1, _hash(found["previousblockhash"]))

    async def txout(self, txid: bytes, vout: int, *, with_mempool: bool = True) -> UnspentOutput | None:
        found = await self.rpc.call("gettxout", _show(txid), vout, with_mempool)
        if found is None:
            return None
        script = bytes.fromhex(found["scriptPubKey"]["hex"])
        return UnspentOutput(_sat(found["value"]), script, found["confirmations"])

    async def raw_transaction(self, txid: bytes, block_hash: bytes | None = None) -> bytes | None:
        place = [] if block_hash is None else [_show(block_hash)]
        found = await self._look("getrawtransaction", _show(txid), 0, *place)
        return None if found is None else bytes.fromhex(found)

    async def mempool_spenders(self, outpoints: Sequence[Outpoint]) -> list[bytes | None]:
        if not outpoints:
            return []
        asked = [_place(outpoint) for outpoint in outpoints]
        found = await self.rpc.call("gettxspendingprevout", asked)
        return [_hash(entry["spendingtxid"]) if "spendingtxid" in entry else None for entry in found]

    async def send_raw_transaction(self, tx: bytes) -> bytes:
        try:
            return _hash(await self.rpc.call("sendrawtransaction", tx.hex()))
        except RpcError as error:
            if error.code == ALREADY_IN_CHAIN:
                return parse_transaction(tx).txid
            raise

    async def submit_package(self, txs: Sequence[bytes]) -> None:
        answer = await self.rpc.call("submitpackage", [tx.hex() for tx in txs])
        if answer["package_msg"] == "success":
            return
        reasons = [entry["error"] for entry in answer["tx-results"].values() if "error" in entry]
        raise RpcError(VERIFY_REJECTED, reasons[0] if reasons else answer["package_msg"])

    async def fee_estimate(self, target: int) -> int | None:
        answer = await self.rpc.call("estimatesmartfee", target)
        feerate = answer.get("feerate")
        return None if feerate is None else _sat(feerate) // WEIGHT_PER_VBYTE

    async def fund(self, script: bytes, amount_sat: int, feerate_per_kw: int) -> FundedTransaction:
        bare = serialize_transaction(FUNDING_VERSION, [], [Output(amount_sat, script)], 0)
        answer = await self._fund(bare, feerate_per_kw, {}, is_witness=False)
        signed = await self.sign(bytes.fromhex(answer["hex"]), {})
        outputs = parse_transaction(signed).outputs
        index = next(n for n, output in enumerate(outputs) if output.script == script)
        return FundedTransaction(signed, index, _sat(answer["fee"]))

    async def add_inputs(
        self, tx: bytes, feerate_per_kw: int, input_weights: Mapping[Outpoint, int]
    ) -> bytes:
        is_witness = any(i.witness for i in parse_transaction(tx).inputs)
        answer = await self._fund(tx, feerate_per_kw, input_weights, is_witness=is_witness)
        return bytes.fromhex(answer["hex"])

    async def sign(self, tx: bytes, previous: Mapping[Outpoint, UnspentOutput]) -> bytes:
        known = [
            {**_place(outpoint), "scriptPubKey": output.script.hex(), "amount": _btc(output.sat)}
            for outpoint, output in previous.items()
        ]
        answer = await self.rpc.call("signrawtransactionwithwallet", tx.hex(), known)
        return bytes.fromhex(answer["hex"])

    async def unlock(self, tx: bytes) -> None:
        await self.unlock_coins([i.outpoint for i in parse_transaction(tx).inputs])

    async def locked(self) -> frozenset[Outpoint]:
        found = await self.rpc.call("listlockunspent")
        return frozenset((_hash(coin["txid"]), coin["vout"]) for coin in found)

    async def unlock_coins(self, outpoints: Iterable[Outpoint]) -> None:
        locked = await self.locked()
        ours = [_place(outpoint) for outpoint in outpoints if outpoint in locked]
        if ours:
            await self.rpc.call("lockunspent", True, ours)

    async def new_address(self) -> str:
        return str(await self.rpc.call("getnewaddress", "", "bech32"))

    async def new_script(self) -> bytes:
        info = await self.rpc.call("getaddressinfo", await self.new_address())
        return bytes.fromhex(info["scriptPubKey"])

    async def send_to_address(self, address: str, amount_sat: int, feerate_per_kw: int) -> bytes:
        feerate = Decimal(feerate_per_kw * WEIGHT_PER_VBYTE) / 1000  # sat/vB
        options = [address, _btc(amount_sat), "", "", False, True, None, "unset", None, feerate]
        return _hash(await self.rpc.call("sendtoaddress", *options))

    async def wallet_balance(self) -> int:
        balances = await self.rpc.call("getbalances")
        return _sat(balances["mine"]["trusted"])

    async def _fund(
        self, tx: bytes, feerate_per_kw: int, weights: Mapping[Outpoint, int], *, is_witness: bool
    ) -> Any:
        """`is_witness` tells how to read the bytes: without inputs they fit both forms."""
        options: dict[str, Any] = {
            "lockUnspents": True,
            "feeRate": _btc(feerate_per_kw * WEIGHT_PER_VBYTE),
            "change_type": "bech32",
        }
        if weights:
            options["input_weights"] = [{**_place(o), "weight": weight} for o, weight in weights.items()]
        return await self.rpc.call("fundrawtransaction", tx.hex(), options, is_witness)

    async def _look(self, method: str, *params: Any) -> Any:
        return _found((await self.rpc.batch([(method, list(params))]))[0])


def _found(reply: Reply) -> Any:
    """The result, or None where bitcoind says that there is no such thing."""
    if reply.error is not None and reply.error.get("code") in NOT_FOUND:
        return None
    return result_of(reply)


def _show(digest: bytes) -> str:
    return digest[::-1].hex()


def _hash(text: str) -> bytes:
    return bytes.fromhex(text)[::-1]


def _place(outpoint: Outpoint) -> dict[str, Any]:
    return {"txid": _show(outpoint[0]), "vout": outpoint[1]}


def _sat(amount_btc: Decimal | float) -> int:
    return int(Decimal(amount_btc) * COIN)


def _btc(amount_sat: int) -> Decimal:
    return (Decimal(amount_sat) / COIN).quantize(Decimal("1e-8"))
