"""RPC: blocks on demand."""

from typing import Any

from lnsim.chain.model import Rejected
from lnsim.chain.rpc.errors import DESERIALIZATION, MISC, NO_KEY, PARAMETER, TYPE, VERIFY, RpcError
from lnsim.chain.rpc.protocol import method
from lnsim.chain.rpc.render import REGTEST_DIFFICULTY
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import address_script, hash_of, raw_of, show, transaction_of
from node.bitcoin.block import parse_block
from node.errors import MalformedMessage

MAX_BLOCKS = 10_000  # per call


@method
def generatetoaddress(session: Session, nblocks: int, address: str, maxtries: int = 0) -> Any:
    try:
        script = address_script(address)
    except RpcError:
        raise RpcError(NO_KEY, "Error: Invalid address") from None
    return [show(block_hash) for block_hash in session.chain.mine(script, _count(nblocks))]


@method
def generate(session: Session, nblocks: int) -> Any:
    """Core dropped it; here it mines to the wallet of the call."""
    script = session.wallet.keys.new_script(change=False)
    return [show(block_hash) for block_hash in session.chain.mine(script, _count(nblocks))]


@method
def generateblock(session: Session, output: str, transactions: list[Any], submit: bool = True) -> Any:
    script, raws = address_script(output), []
    for text in transactions:
        if not isinstance(text, str):
            raise RpcError(TYPE, "JSON value is not of expected type string")
        entry = session.chain.mempool.entries.get(hash_of(text, "txid")) if len(text) == 64 else None
        if len(text) == 64 and entry is None:
            raise RpcError(NO_KEY, f"Transaction {text} not in mempool.")
        raws.append(entry.tx.raw if entry else transaction_of(text).raw)
    raw = session.chain.template(script, raws)
    if not submit:
        return {"hash": show(parse_block(raw).hash), "hex": raw.hex()}
    try:
        block = session.chain.submit_block(raw)
    except Rejected as why:
        raise RpcError(VERIFY, f"TestBlockValidity failed: {why}") from None
    return {"hash": show(block.hash)}


@method
def submitblock(session: Session, hexdata: str) -> Any:
    try:
        raw = raw_of(hexdata)
        known = parse_block(raw).hash
    except (RpcError, MalformedMessage):
        raise RpcError(DESERIALIZATION, "Block decode failed") from None
    if session.chain.block(known):
        return "duplicate"
    try:
        block = session.chain.submit_block(raw)
    except Rejected as why:
        return str(why)
    return None if session.chain.ledger.is_active(block) else "inconclusive"


@method
def getmininginfo(session: Session) -> Any:
    return {
        "blocks": session.chain.height,
        "difficulty": REGTEST_DIFFICULTY,
        "networkhashps": 0,
        "pooledtx": len(session.chain.mempool.entries),
        "chain": "regtest",
        "warnings": [],
    }


def _count(nblocks: int) -> int:
    if nblocks < 0:
        raise RpcError(PARAMETER, "nblocks cannot be negative")
    if nblocks > MAX_BLOCKS:
        raise RpcError(MISC, f"at most {MAX_BLOCKS} blocks per call")
    return nblocks
