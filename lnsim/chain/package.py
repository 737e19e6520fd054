"""Package relay as `submitpackage` offers it: one child with its unconfirmed parents."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from lnsim.chain.accept import INPUTS_MISSING, Candidate, Gate, check_min_fee
from lnsim.chain.family import check_family, check_truc
from lnsim.chain.mempool import Entry
from lnsim.chain.model import Rejected
from lnsim.chain.replacement import check_pays_for
from node.bitcoin.block import ChainTransaction

MAX_PACKAGE = 25
MAX_PACKAGE_WEIGHT = 404_000
CHILD_FIRST_REFUSALS = ("min relay fee not met", "insufficient fee", INPUTS_MISSING)


class PackageResult(Struct, frozen=True):
    """`refused` maps a wtxid to its reason; `shared` are those that paid together (wtxids)."""

    message: str
    entered: tuple[Entry, ...]
    left: tuple[Entry, ...]
    refused: dict[bytes, str]
    shared: tuple[bytes, ...] = ()


def check_package(txs: Sequence[ChainTransaction]) -> None:
    """The package's form: bounded, sorted, without conflicts, and a child with its parents."""
    if len(txs) > MAX_PACKAGE:
        raise Rejected("package-too-many-transactions")
    if sum(tx.weight for tx in txs) > MAX_PACKAGE_WEIGHT:
        raise Rejected("package-too-large")
    if len({tx.txid for tx in txs}) != len(txs):
        raise Rejected("package-contains-duplicates")
    later = {tx.txid for tx in txs}
    for tx in txs:
        if any(i.txid in later for i in tx.inputs):
            raise Rejected("package-not-sorted")
        later.discard(tx.txid)
    outpoints = [i.outpoint for tx in txs for i in tx.inputs]
    if len(set(outpoints)) != len(outpoints):
        raise Rejected("conflict-in-package")


def submit_package(gate: Gate, txs: Sequence[ChainTransaction]) -> PackageResult:
    """Take each alone where that works, and the rest together at their common feerate; raises Rejected."""
    check_package(txs)
    parents = {i.txid for i in txs[-1].inputs}
    if any(tx.txid not in parents for tx in txs[:-1]):
        raise Rejected("package-not-child-with-parents")
    entered: list[Entry] = []
    left: list[Entry] = []
    waiting: list[ChainTransaction] = []
    refused: dict[bytes, str] = {}
    for tx in txs:
        try:
            entry, gone = gate.enter(gate.evaluate(tx))
        except Rejected as why:
            if tx.wtxid in gate.mempool.wtxids or tx.txid in gate.mempool:
                continue
            if why.reason not in CHILD_FIRST_REFUSALS:
                refused[tx.wtxid] = str(why)
                break
            waiting.append(tx)
            refused[tx.wtxid] = str(why)
        else:
            entered.append(entry)
            left += gone
    hopeless = len(waiting) < 2 or any(wtxid not in {tx.wtxid for tx in waiting} for wtxid in refused)
    if hopeless:
        message = "transaction failed" if refused else "success"
        return PackageResult(message, tuple(entered), tuple(left), refused)
    return _together(gate, waiting, entered, left)


def _together(
    gate: Gate, txs: list[ChainTransaction], entered: list[Entry], left: list[Entry]
) -> PackageResult:
    try:
        candidates = _evaluate_together(gate, txs)
    except Rejected as why:
        refused = {tx.wtxid: str(why) for tx in txs}
        return PackageResult("transaction failed", tuple(entered), tuple(left), refused)
    for candidate in candidates:
        entry, gone = gate.enter(candidate)
        entered.append(entry)
        left += gone
    return PackageResult("success", tuple(entered), tuple(left), {}, tuple(tx.wtxid for tx in txs))


def _evaluate_together(gate: Gate, txs: list[ChainTransaction]) -> list[Candidate]:
    found = [gate.prepare(tx, txs[:index]) for index, tx in enumerate(txs)]
    fee_sat, vsize = sum(c.fee_sat for c in found), sum(c.vsize for c in found)
    check_min_fee(fee_sat, vsize)
    evicted = _evicted(gate, found, fee_sat, vsize)
    gate.check_room(vsize)
    for candidate in found:
        gate.check_scripts(candidate)
    return [replace(found[0], evicted=frozenset(evicted)), *found[1:]]


def _evicted(gate: Gate, found: list[Candidate], fee_sat: int, vsize: int) -> set[bytes]:
    """What the package pushes out: only one parent with one child, both without other families, may."""
    mempool = gate.mempool
    *parents, child = [candidate.tx for candidate in found]
    conflicts: set[bytes] = set()
    for index, candidate in enumerate(found):
        own = mempool.conflicts(candidate.tx)
        conflicts |= own | check_truc(mempool, candidate.tx, own, [c.tx for c in found[:index]])
    evicted = mempool.with_descendants(conflicts)
    check_family(mempool, child, evicted, parents)
    if not conflicts:
        return set()
    if len(found) != 2 or any(mempool.ancestors(candidate.tx) for candidate in found):
        raise Rejected("package RBF failed: package must be 1-parent-1-child")
    name = child.txid[::-1].hex()
    check_pays_for(name, fee_sat, vsize, mempool.fees_and_vsize(evicted)[0])
    if fee_sat * found[0].vsize <= found[0].fee_sat * vsize:
        raise Rejected("package RBF failed: package feerate is less than or equal to parent feerate")
    for txid in conflicts:
        entry = mempool.entries[txid]
        if fee_sat * entry.vsize <= entry.fee_sat * vsize:
            raise Rejected("package RBF failed: insufficient feerate: does not improve feerate diagram")
    return evicted
