"""The transactions that wait for a block, who spends whom, and their families."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from lnsim.chain.model import Coin, Outpoint
from lnsim.chain.sigops import charged_vsize
from node.bitcoin.block import ChainTransaction

MAX_MEMPOOL_VSIZE = 100_000_000  # what Core's 300 MB hold; beyond it a transaction is refused


class Entry(Struct, frozen=True):
    tx: ChainTransaction
    fee_sat: int
    time_s: int
    height: int  # of the tip when it came
    sequence: int
    sigops: int

    @property
    def vsize(self) -> int:
        return charged_vsize(self.tx.weight, self.sigops)


class Mempool:
    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.spenders: dict[Outpoint, bytes] = {}
        self.wtxids: dict[bytes, bytes] = {}
        self.vsize = 0
        self.sequence = 0

    def __contains__(self, txid: bytes) -> bool:
        return txid in self.entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def coin(self, outpoint: Outpoint) -> Coin | None:
        entry = self.entries.get(outpoint[0])
        if entry is None or outpoint[1] >= len(entry.tx.outputs):
            return None
        output = entry.tx.outputs[outpoint[1]]
        return Coin(output.sat, output.script, None)

    def add(self, tx: ChainTransaction, fee_sat: int, sigops: int, time_s: int, height: int) -> Entry:
        self.sequence += 1
        entry = Entry(tx, fee_sat, time_s, height, self.sequence, sigops)
        self.entries[tx.txid] = entry
        self.wtxids[tx.wtxid] = tx.txid
        for i in tx.inputs:
            self.spenders[i.outpoint] = tx.txid
        self.vsize += entry.vsize
        return entry

    def remove(self, txid: bytes) -> Entry | None:
        """Take one transaction out; its family stays."""
        entry = self.entries.pop(txid, None)
        if entry is None:
            return None
        self.sequence += 1
        self.wtxids.pop(entry.tx.wtxid, None)
        for i in entry.tx.inputs:
            if self.spenders.get(i.outpoint) == txid:
                del self.spenders[i.outpoint]
        self.vsize -= entry.vsize
        return entry

    def parents(self, tx: ChainTransaction) -> set[bytes]:
        return {i.txid for i in tx.inputs if i.txid in self.entries}

    def children(self, txid: bytes) -> set[bytes]:
        outputs = range(len(self.entries[txid].tx.outputs))
        return {self.spenders[txid, vout] for vout in outputs if (txid, vout) in self.spenders}

    def ancestors(self, tx: ChainTransaction) -> set[bytes]:
        """All unconfirmed transactions that `tx` rests on, without itself."""
        found: set[bytes] = set()
        todo = list(self.parents(tx))
        while todo:
            txid = todo.pop()
            if txid not in found:
                found.add(txid)
                todo += self.parents(self.entries[txid].tx)
        return found

    def descendants(self, txid: bytes) -> set[bytes]:
        """All that rest on `txid`, without itself."""
        found: set[bytes] = set()
        todo = list(self.children(txid))
        while todo:
            child = todo.pop()
            if child not in found:
                found.add(child)
                todo += self.children(child)
        return found

    def conflicts(self, tx: ChainTransaction) -> set[bytes]:
        spenders = (self.spenders.get(i.outpoint) for i in tx.inputs)
        return {txid for txid in spenders if txid and txid != tx.txid}

    def with_descendants(self, txids: Iterable[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for txid in txids:
            found |= {txid} | self.descendants(txid)
        return found

    def fees_and_vsize(self, txids: Iterable[bytes]) -> tuple[int, int]:
        entries = [self.entries[txid] for txid in txids]
        return sum(e.fee_sat for e in entries), sum(e.vsize for e in entries)
