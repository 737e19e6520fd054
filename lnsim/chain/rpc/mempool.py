"""RPC: the mempool, raw transactions, fees."""

from decimal import Decimal
from typing import Any

from lnsim.chain.accept import INPUTS_MISSING, MIN_RELAY_SAT_PER_KVB, Candidate
from lnsim.chain.mempool import MAX_MEMPOOL_VSIZE, Entry
from lnsim.chain.model import Rejected
from lnsim.chain.package import PackageResult
from lnsim.chain.replacement import INCREMENTAL_RELAY_SAT_PER_KVB
from lnsim.chain.rpc.errors import ALREADY_IN_CHAIN, NO_KEY, PARAMETER, VERIFY, VERIFY_REJECTED, RpcError
from lnsim.chain.rpc.protocol import method
from lnsim.chain.rpc.render import transaction_json
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import amount, block_of, hash_of, sat_of, show, transaction_of
from node.bitcoin.block import ChainTransaction

DEFAULT_MAX_FEERATE = Decimal("0.10")
MAX_ESTIMATE_TARGET = 1008


@method
def sendrawtransaction(
    session: Session,
    hexstring: str,
    maxfeerate: Decimal | str = DEFAULT_MAX_FEERATE,
    maxburnamount: Decimal | str = Decimal(0),
) -> Any:
    tx, chain = transaction_of(hexstring), session.chain
    _check_burn(tx, sat_of(maxburnamount))
    if tx.txid in chain.mempool:
        return show(tx.txid)
    try:
        found = chain.test(tx.raw)
        _check_max_fee(found, sat_of(maxfeerate))
        return show(chain.enter(found))
    except Rejected as why:
        known = tx.txid in chain.ledger.index
        if known and any((tx.txid, n) in chain.ledger.coins for n in range(len(tx.outputs))):
            raise RpcError(ALREADY_IN_CHAIN, "Transaction outputs already in utxo set") from None
        code = VERIFY if why.reason == INPUTS_MISSING else VERIFY_REJECTED
        raise RpcError(code, str(why)) from None


@method
def testmempoolaccept(
    session: Session,
    rawtxs: list[Any],
    maxfeerate: Decimal | str = DEFAULT_MAX_FEERATE,  # noqa: PT028 - an RPC's name, no test
) -> Any:
    if not 1 <= len(rawtxs) <= 25:
        raise RpcError(PARAMETER, "Array must contain between 1 and 25 transactions.")
    txs = [transaction_of(raw) for raw in rawtxs]
    shown = []
    for tx, verdict in zip(txs, session.chain.test_package([tx.raw for tx in txs]), strict=True):
        entry: dict[str, Any] = {"txid": show(tx.txid), "wtxid": show(tx.wtxid)}
        if isinstance(verdict, Rejected):
            reason = "missing-inputs" if verdict.reason == INPUTS_MISSING else verdict.reason
            entry |= {"allowed": False, "reject-reason": reason, "reject-details": str(verdict)}
        elif verdict.fee_sat * 1000 > sat_of(maxfeerate) * verdict.vsize:
            entry |= {"allowed": False, "reject-reason": "max-fee-exceeded"}
        else:
            entry |= {"allowed": True, "vsize": verdict.vsize, "fees": {"base": amount(verdict.fee_sat)}}
        shown.append(entry)
    return shown


@method
def submitpackage(session: Session, package: list[Any]) -> Any:
    if not 1 <= len(package) <= 25:
        raise RpcError(PARAMETER, "Array must contain between 1 and 25 transactions.")
    txs = [transaction_of(raw) for raw in package]
    try:
        result = session.chain.submit_package([tx.raw for tx in txs])
    except Rejected as why:
        if why.reason == "package-not-child-with-parents":
            raise RpcError(VERIFY, "package topology disallowed. not child-with-parents") from None
        return {"package_msg": why.reason, "tx-results": {}, "replaced-transactions": []}
    return {
        "package_msg": result.message,
        "tx-results": {show(tx.wtxid): _package_entry(session, tx, result) for tx in txs},
        "replaced-transactions": [show(entry.tx.txid) for entry in result.left],
    }


@method
def getrawtransaction(
    session: Session, txid: str, verbosity: int | bool = 0, blockhash: str | None = None
) -> Any:
    chain, wanted = session.chain, hash_of(txid, "parameter 1")
    if blockhash is None:
        found = chain.transaction(wanted)
    else:
        block = block_of(session, blockhash)
        transactions = chain.ledger.transactions(block) if wanted in block.txids else ()
        found = next(((tx, block) for tx in transactions if tx.txid == wanted), None)
        if found is None:
            raise RpcError(
                NO_KEY,
                "No such transaction found in the provided block. Use gettransaction for wallet transactions.",
            )
    if found is None:
        raise RpcError(
            NO_KEY, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions."
        )
    tx, in_block = found
    if not int(verbosity):
        return tx.raw.hex()
    shown = transaction_json(tx, with_hex=True)
    if in_block:
        active = chain.ledger.is_active(in_block)
        shown["blockhash"] = show(in_block.hash)
        shown["confirmations"] = chain.height - in_block.height + 1 if active else 0
        shown["time"] = shown["blocktime"] = in_block.time_s
    return shown


@method
def decoderawtransaction(session: Session, hexstring: str, iswitness: bool = True) -> Any:
    return transaction_json(transaction_of(hexstring))


@method
def getmempoolinfo(session: Session) -> Any:
    mempool = session.chain.mempool
    return {
        "loaded": True,
        "size": len(mempool.entries),
        "bytes": mempool.vsize,
        "usage": sum(len(entry.tx.raw) for entry in mempool),
        "total_fee": amount(sum(entry.fee_sat for entry in mempool)),
        "maxmempool": 3 * MAX_MEMPOOL_VSIZE,
        "mempoolminfee": amount(MIN_RELAY_SAT_PER_KVB),
        "minrelaytxfee": amount(MIN_RELAY_SAT_PER_KVB),
        "incrementalrelayfee": amount(INCREMENTAL_RELAY_SAT_PER_KVB),
        "unbroadcastcount": 0,
        "fullrbf": True,
    }


@method
def getrawmempool(session: Session, verbose: bool = False, mempool_sequence: bool = False) -> Any:
    mempool = session.chain.mempool
    if verbose:
        return {show(entry.tx.txid): _entry_json(session, entry) for entry in mempool}
    txids = [show(txid) for txid in mempool.entries]
    return {"txids": txids, "mempool_sequence": mempool.sequence} if mempool_sequence else txids


@method
def getmempoolentry(session: Session, txid: str) -> Any:
    entry = session.chain.mempool.entries.get(hash_of(txid, "txid"))
    if entry is None:
        raise RpcError(NO_KEY, "Transaction not in mempool")
    return _entry_json(session, entry)


@method
def estimatesmartfee(session: Session, conf_target: int, estimate_mode: str = "economical") -> Any:
    if not 1 <= conf_target <= MAX_ESTIMATE_TARGET:
        raise RpcError(PARAMETER, f"Invalid conf_target, must be between 1 and {MAX_ESTIMATE_TARGET}")
    return {"feerate": amount(session.chain.fee_estimate(conf_target)), "blocks": conf_target}


@method
def setfeeestimate(session: Session, conf_target: int, feerate: Decimal | str) -> Any:
    """Ours, not Core's: set what `estimatesmartfee` answers for a target, in BTC/kvB."""
    session.chain.fee_estimates[conf_target] = sat_of(feerate)


def _check_burn(tx: ChainTransaction, most_sat: int) -> None:
    if any(output.sat > most_sat for output in tx.outputs if output.script.startswith(b"\x6a")):
        raise RpcError(VERIFY, "Unspendable output exceeds maximum configured by user (maxburnamount)")


def _check_max_fee(found: Candidate, most_sat_per_kvb: int) -> None:
    if most_sat_per_kvb and found.fee_sat * 1000 > most_sat_per_kvb * found.vsize:
        text = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)"
        raise RpcError(VERIFY, text)


def _package_entry(session: Session, tx: ChainTransaction, result: PackageResult) -> dict[str, Any]:
    shown: dict[str, Any] = {"txid": show(tx.txid)}
    if tx.wtxid in result.refused:
        return shown | {"error": result.refused[tx.wtxid]}
    mempool = session.chain.mempool
    entry = mempool.entries.get(tx.txid)
    if entry is None:
        return shown | {"error": "package-not-validated"}
    shown |= {"vsize": entry.vsize, "fees": {"base": amount(entry.fee_sat)}}
    if tx.wtxid in result.shared:
        fee_sat, vsize = mempool.fees_and_vsize(mempool.wtxids[wtxid] for wtxid in result.shared)
        shown["fees"]["effective-feerate"] = amount(fee_sat * 1000 // vsize)
        shown["fees"]["effective-includes"] = [show(wtxid) for wtxid in result.shared]
    return shown


def _entry_json(session: Session, entry: Entry) -> dict[str, Any]:
    mempool, txid = session.chain.mempool, entry.tx.txid
    ancestors = mempool.ancestors(entry.tx) | {txid}
    descendants = mempool.descendants(txid) | {txid}
    ancestor_fee, ancestor_vsize = mempool.fees_and_vsize(ancestors)
    descendant_fee, descendant_vsize = mempool.fees_and_vsize(descendants)
    return {
        "vsize": entry.vsize,
        "weight": entry.tx.weight,
        "time": entry.time_s,
        "height": entry.height,
        "descendantcount": len(descendants),
        "descendantsize": descendant_vsize,
        "ancestorcount": len(ancestors),
        "ancestorsize": ancestor_vsize,
        "wtxid": show(entry.tx.wtxid),
        "fees": {
            "base": amount(entry.fee_sat),
            "modified": amount(entry.fee_sat),
            "ancestor": amount(ancestor_fee),
            "descendant": amount(descendant_fee),
        },
        "depends": [show(parent) for parent in sorted(mempool.parents(entry.tx))],
        "spentby": [show(child) for child in sorted(mempool.children(txid))],
        "bip125-replaceable": True,
        "unbroadcast": False,
    }
