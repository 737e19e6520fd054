"""Core's limits on unconfirmed families: chain length and size, and version 3 (TRUC) topology."""

from collections.abc import Sequence

from lnsim.chain.mempool import Mempool
from lnsim.chain.model import Rejected
from node.bitcoin.block import ChainTransaction

MAX_FAMILY = 25
MAX_FAMILY_VSIZE = 101_000
CARVE_OUT_VSIZE = 10_000  # one more small child for the second party of a contract
TRUC = 3
TRUC_MAX_VSIZE = 10_000
TRUC_CHILD_MAX_VSIZE = 1_000


def check_family(
    mempool: Mempool, tx: ChainTransaction, evicted: set[bytes], package: Sequence[ChainTransaction] = ()
) -> None:
    """Whether ancestors and descendants stay within Core's limits; `package` enters together with `tx`."""
    ancestors = mempool.ancestors(tx)
    for member in package:
        ancestors |= mempool.ancestors(member)
    count = len(ancestors) + 1 + len(package)
    size = mempool.fees_and_vsize(ancestors)[1] + tx.vsize + sum(member.vsize for member in package)
    if count > MAX_FAMILY:
        raise _too_long(f"too many unconfirmed ancestors [limit: {MAX_FAMILY}]")
    if size > MAX_FAMILY_VSIZE:
        raise _too_long(f"exceeds ancestor size limit [limit: {MAX_FAMILY_VSIZE}]")
    carve_out = len(ancestors) == 1 and not package and tx.vsize <= CARVE_OUT_VSIZE
    for txid in sorted(ancestors):
        descendants = mempool.descendants(txid) - evicted
        vsize = mempool.fees_and_vsize({txid} | descendants)[1] + tx.vsize
        if len(descendants) + 2 > MAX_FAMILY + carve_out:
            name = txid[::-1].hex()
            raise _too_long(f"too many descendants for tx {name} [limit: {MAX_FAMILY}]")
        if vsize > MAX_FAMILY_VSIZE + carve_out * CARVE_OUT_VSIZE:
            name = txid[::-1].hex()
            raise _too_long(f"exceeds descendant size limit for tx {name} [limit: {MAX_FAMILY_VSIZE}]")


def check_truc(
    mempool: Mempool, tx: ChainTransaction, conflicts: set[bytes], package: Sequence[ChainTransaction] = ()
) -> set[bytes]:
    """Version 3 topology; the sibling that `tx` would have to replace, if there is one."""
    inputs = {i.txid for i in tx.inputs}
    unconfirmed = [mempool.entries[txid].tx for txid in mempool.parents(tx)]
    unconfirmed += [member for member in package if member.txid in inputs]
    name = tx.txid[::-1].hex()
    if any((parent.version == TRUC) != (tx.version == TRUC) for parent in unconfirmed):
        raise Rejected("TRUC-violation", f"tx {name} and its unconfirmed parent differ in version 3")
    if tx.version != TRUC:
        return set()
    if tx.vsize > TRUC_MAX_VSIZE:
        raise Rejected("TRUC-violation", f"version=3 tx {name} is too big: {tx.vsize} > {TRUC_MAX_VSIZE}")
    if not unconfirmed:
        return set()
    if len(unconfirmed) > 1 or mempool.ancestors(unconfirmed[0]):
        raise Rejected("TRUC-violation", f"tx {name} would have too many ancestors")
    if tx.vsize > TRUC_CHILD_MAX_VSIZE:
        raise Rejected(
            "TRUC-violation", f"version=3 child tx {name} is too big: {tx.vsize} > {TRUC_CHILD_MAX_VSIZE}"
        )
    parent = unconfirmed[0].txid
    siblings = mempool.children(parent) - conflicts if parent in mempool else set()
    if len(siblings) > 1:
        raise Rejected("TRUC-violation", f"tx {parent[::-1].hex()} would exceed descendant count limit")
    return siblings


def _too_long(detail: str) -> Rejected:
    return Rejected("too-long-mempool-chain", detail)
