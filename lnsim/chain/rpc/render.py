"""Blocks and transactions as Core's JSON shows them."""

from typing import Any

from lnsim.chain.consensus import is_coinbase
from lnsim.chain.keys import address_of
from lnsim.chain.model import Coin, StoredBlock
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import amount, show
from lnsim.chain.standard import script_type
from lnsim.chain.template import REGTEST_BITS, REGTEST_TARGET
from node.bitcoin.block import ChainTransaction

REGTEST_DIFFICULTY = 4.656542373906925e-10
GENESIS_PREVIOUS = bytes(32)


def header_json(session: Session, block: StoredBlock) -> dict[str, Any]:
    chain = session.chain
    active = chain.ledger.is_active(block)
    shown: dict[str, Any] = {
        "hash": show(block.hash),
        "confirmations": chain.height - block.height + 1 if active else -1,
        "height": block.height,
        "version": int.from_bytes(block.header[:4], "little"),
        "versionHex": block.header[:4][::-1].hex(),
        "merkleroot": show(block.header[36:68]),
        "time": block.time_s,
        "mediantime": block.median_time_s,
        "nonce": int.from_bytes(block.header[76:], "little"),
        "bits": f"{REGTEST_BITS:08x}",
        "target": f"{REGTEST_TARGET:064x}",
        "difficulty": REGTEST_DIFFICULTY,
        "chainwork": f"{2 * (block.height + 1):064x}",
        "nTx": len(block.txids),
    }
    if block.previous != GENESIS_PREVIOUS:
        shown["previousblockhash"] = show(block.previous)
    if active and block.height < chain.height:
        shown["nextblockhash"] = show(chain.ledger.active[block.height + 1])
    return shown


def block_json(session: Session, block: StoredBlock, verbosity: int) -> dict[str, Any]:
    shown = header_json(session, block)
    transactions = session.chain.ledger.transactions(block)
    stripped = sum((tx.weight - len(tx.raw)) // 3 for tx in transactions)
    overhead = len(block.raw) - sum(len(tx.raw) for tx in transactions)
    shown["size"] = len(block.raw)
    shown["strippedsize"] = stripped + overhead
    shown["weight"] = sum(tx.weight for tx in transactions) + 4 * overhead
    if verbosity == 1:
        shown["tx"] = [show(txid) for txid in block.txids]
    else:
        shown["tx"] = [transaction_json(tx, with_hex=True) for tx in transactions]
    return shown


def transaction_json(tx: ChainTransaction, *, with_hex: bool = False) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "txid": show(tx.txid),
        "hash": show(tx.wtxid),
        "version": tx.version,
        "size": len(tx.raw),
        "vsize": tx.vsize,
        "weight": tx.weight,
        "locktime": tx.locktime,
        "vin": _inputs_json(tx),
        "vout": [
            {"value": amount(output.sat), "n": n, "scriptPubKey": script_json(output.script)}
            for n, output in enumerate(tx.outputs)
        ],
    }
    if with_hex:
        shown["hex"] = tx.raw.hex()
    return shown


def script_json(script: bytes) -> dict[str, Any]:
    shown: dict[str, Any] = {"hex": script.hex(), "type": script_type(script)}
    if address := address_of(script):
        shown["address"] = address
    return shown


def coin_json(session: Session, coin: Coin) -> dict[str, Any]:
    height = session.chain.height
    return {
        "bestblock": show(session.chain.tip.hash),
        "confirmations": 0 if coin.height is None else height - coin.height + 1,
        "value": amount(coin.sat),
        "scriptPubKey": script_json(coin.script),
        "coinbase": coin.coinbase,
    }


def _inputs_json(tx: ChainTransaction) -> list[dict[str, Any]]:
    shown = []
    for i in tx.inputs:
        entry: dict[str, Any]
        if is_coinbase(tx):
            entry = {"coinbase": i.script_sig.hex()}
        else:
            entry = {
                "txid": show(i.txid),
                "vout": i.vout,
                "scriptSig": {"asm": "", "hex": i.script_sig.hex()},
            }
        if i.witness:
            entry["txinwitness"] = [item.hex() for item in i.witness]
        entry["sequence"] = i.sequence
        shown.append(entry)
    return shown
