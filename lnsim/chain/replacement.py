"""When an unconfirmed transaction may push out those it conflicts with: BIP 125 without opt-in (full RBF)."""

from lnsim.chain.consensus import btc
from lnsim.chain.mempool import Mempool
from lnsim.chain.model import Rejected
from node.bitcoin.block import ChainTransaction

MAX_REPLACED = 100
INCREMENTAL_RELAY_SAT_PER_KVB = 1_000


def check_replacement(
    mempool: Mempool, tx: ChainTransaction, fee_sat: int, vsize: int, conflicts: set[bytes]
) -> set[bytes]:
    """The transactions that `tx` evicts; raises Rejected where it pays too little for that."""
    if not conflicts:
        return set()
    name = tx.txid[::-1].hex()
    if mempool.ancestors(tx) & conflicts:
        spent = min(mempool.ancestors(tx) & conflicts)[::-1].hex()
        raise Rejected("bad-txns-spends-conflicting-tx", f"{name} spends conflicting transaction {spent}")
    for txid in sorted(conflicts):
        _check_feerate(name, fee_sat, vsize, mempool, txid)
    evicted = mempool.with_descendants(conflicts)
    if len(evicted) > MAX_REPLACED:
        detail = f"rejecting replacement {name}; too many potential replacements"
        raise Rejected("too many potential replacements", f"{detail} ({len(evicted)} > {MAX_REPLACED})")
    known = {i.txid for txid in conflicts for i in mempool.entries[txid].tx.inputs}
    if mempool.parents(tx) - known:
        raise Rejected(
            "replacement-adds-unconfirmed",
            f"replacement {name} adds unconfirmed input, idx {_new(tx, known)}",
        )
    check_pays_for(name, fee_sat, vsize, mempool.fees_and_vsize(evicted)[0])
    return evicted


def check_pays_for(name: str, fee_sat: int, vsize: int, evicted_fee_sat: int) -> None:
    """The replacement pays what it evicts, and its own relay on top."""
    if fee_sat < evicted_fee_sat:
        detail = f"less fees than conflicting txs; {btc(fee_sat)} < {btc(evicted_fee_sat)}"
        raise _insufficient(name, detail)
    extra, needed = fee_sat - evicted_fee_sat, vsize * INCREMENTAL_RELAY_SAT_PER_KVB // 1000
    if extra < needed:
        raise _insufficient(name, f"not enough additional fees to relay; {btc(extra)} < {btc(needed)}")


def _check_feerate(name: str, fee_sat: int, vsize: int, mempool: Mempool, txid: bytes) -> None:
    entry = mempool.entries[txid]
    if fee_sat * entry.vsize <= entry.fee_sat * vsize:
        new, old = btc(fee_sat * 1000 // vsize), btc(entry.fee_sat * 1000 // entry.vsize)
        text = f"rejecting replacement {name}; new feerate {new} BTC/kvB <= old feerate {old} BTC/kvB"
        raise Rejected("insufficient fee", text, wants_fee=True)


def _insufficient(name: str, why: str) -> Rejected:
    return Rejected("insufficient fee", f"rejecting replacement {name}, {why}", wants_fee=True)


def _new(tx: ChainTransaction, known: set[bytes]) -> int:
    return next(index for index, i in enumerate(tx.inputs) if i.txid not in known)
