"""RPC: what the chain knows of blocks and coins, and moving its tip."""

from typing import Any

from lnsim.chain.keys import HRP, script_of
from lnsim.chain.rpc.errors import MISC, PARAMETER, RpcError
from lnsim.chain.rpc.protocol import method
from lnsim.chain.rpc.render import REGTEST_DIFFICULTY, block_json, coin_json, header_json
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import block_of, hash_of, outpoint_of, show
from lnsim.chain.template import REGTEST_BITS, REGTEST_TARGET

VERSION = 280000
PROTOCOL_VERSION = 70016
SUBVERSION = "/Satoshi:28.0.0(embedded chain)/"


@method
def getblockchaininfo(session: Session) -> Any:
    tip = session.chain.tip
    return {
        "chain": "regtest",
        "blocks": tip.height,
        "headers": tip.height,
        "bestblockhash": show(tip.hash),
        "bits": f"{REGTEST_BITS:08x}",
        "target": f"{REGTEST_TARGET:064x}",
        "difficulty": REGTEST_DIFFICULTY,
        "time": tip.time_s,
        "mediantime": tip.median_time_s,
        "verificationprogress": 1,
        "initialblockdownload": False,
        "chainwork": f"{2 * (tip.height + 1):064x}",
        "size_on_disk": sum(len(b.raw) for b in session.chain.ledger.blocks.values()),
        "pruned": False,
        "warnings": [],
    }


@method
def getblockcount(session: Session) -> Any:
    return session.chain.height


@method
def getbestblockhash(session: Session) -> Any:
    return show(session.chain.tip.hash)


@method
def getblockhash(session: Session, height: int) -> Any:
    if not 0 <= height <= session.chain.height:
        raise RpcError(PARAMETER, "Block height out of range")
    return show(session.chain.ledger.active[height])


@method
def getblockheader(session: Session, blockhash: str, verbose: bool = True) -> Any:
    block = block_of(session, blockhash, "hash")
    return header_json(session, block) if verbose else block.header.hex()


@method
def getblock(session: Session, blockhash: str, verbosity: int | bool = 1) -> Any:
    block = block_of(session, blockhash)
    return block_json(session, block, int(verbosity)) if int(verbosity) else block.raw.hex()


@method
def getchaintips(session: Session) -> Any:
    ledger = session.chain.ledger
    parents = {block.previous for block in ledger.blocks.values()}
    tips = [block for block in ledger.blocks.values() if block.hash not in parents]
    return [
        {
            "height": block.height,
            "hash": show(block.hash),
            "branchlen": _branch_length(session, block.hash),
            "status": "active" if ledger.is_active(block) else "valid-fork",
        }
        for block in {tip.hash: tip for tip in [*tips, ledger.tip]}.values()
    ]


@method
def gettxout(session: Session, txid: str, n: int, include_mempool: bool = True) -> Any:
    coin = session.chain.coin((hash_of(txid, "txid"), n), with_mempool=include_mempool)
    return None if coin is None else coin_json(session, coin)


@method
def gettxspendingprevout(session: Session, outputs: list[Any]) -> Any:
    if not outputs:
        raise RpcError(PARAMETER, "Invalid parameter, outputs are missing")
    shown = []
    for output in outputs:
        txid, vout = outpoint_of(output)
        entry: dict[str, Any] = {"txid": show(txid), "vout": vout}
        if spender := session.chain.mempool.spenders.get((txid, vout)):
            entry["spendingtxid"] = show(spender)
        shown.append(entry)
    return shown


@method
def invalidateblock(session: Session, blockhash: str) -> Any:
    block = block_of(session, blockhash)
    if block.height == 0:
        raise RpcError(MISC, "the genesis block stays")
    session.chain.invalidate(block.hash)


@method
def reconsiderblock(session: Session, blockhash: str) -> Any:
    session.chain.reconsider(block_of(session, blockhash).hash)


@method
def getnetworkinfo(session: Session) -> Any:
    return {
        "version": VERSION,
        "subversion": SUBVERSION,
        "protocolversion": PROTOCOL_VERSION,
        "localrelay": True,
        "networkactive": False,
        "connections": 0,
        "relayfee": 0.00001,
        "incrementalfee": 0.00001,
        "networks": [],
        "localaddresses": [],
        "warnings": [],
    }


@method
def getindexinfo(session: Session, index_name: str = "") -> Any:
    info = {"txindex": {"synced": True, "best_block_height": session.chain.height}}
    return info if index_name in ("", "txindex") else {}


@method
def getzmqnotifications(session: Session) -> Any:
    topics = ("pubhashblock", "pubhashtx", "pubrawblock", "pubrawtx", "pubsequence")
    if session.zmq_address is None:
        return []
    return [{"type": topic, "address": session.zmq_address, "hwm": 1000} for topic in topics]


@method
def uptime(session: Session) -> Any:
    return int(session.chain.now() - session.started_s)


@method
def validateaddress(session: Session, address: str) -> Any:
    script = script_of(address)
    if script is None:
        return {"isvalid": False, "error_locations": [], "error": f"Not an address of {HRP}"}
    return {
        "isvalid": True,
        "address": address,
        "scriptPubKey": script.hex(),
        "isscript": len(script) == 34 or script[0] == 0xA9,
        "iswitness": script[0] in (0, 0x51),
    }


def _branch_length(session: Session, block_hash: bytes) -> int:
    ledger, length = session.chain.ledger, 0
    block = ledger.blocks[block_hash]
    while not ledger.is_active(block):
        length += 1
        block = ledger.blocks[block.previous]
    return length
