"""The embedded chain as a plain object: transactions in, blocks on demand, reorgs, and who wants to know.

No IO but the engine's scratch directory, no asyncio, and the clock is an argument: a server can wrap it
(`lnsim.chain.server`) and a virtual-time simulation can hold it directly.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pbk

from lnsim.chain.accept import Candidate, Gate
from lnsim.chain.ledger import Ledger
from lnsim.chain.mempool import Entry, Mempool
from lnsim.chain.model import (
    BlockConnected,
    BlockDisconnected,
    Coin,
    Event,
    Outpoint,
    Rejected,
    StoredBlock,
    TipChanged,
    TransactionAdded,
    TransactionRemoved,
)
from lnsim.chain.package import PackageResult, check_package, submit_package
from lnsim.chain.template import assemble, coinbase, select, subsidy_sat
from node.bitcoin.block import ChainTransaction, parse_transaction
from node.errors import MalformedMessage

BLOCK_INTERVAL_S = 600
DEFAULT_FEE_SAT_PER_KVB = 1_000


class Chain:
    """A regtest chain with its mempool. `now` gives seconds since 1970; header times follow it."""

    def __init__(self, now: Callable[[], float], directory: Path | None = None) -> None:
        self.now = now
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="lnsim-chain-", dir=directory))
        self.ledger = Ledger(self._scratch)
        self.mempool = Mempool()
        self.gate = Gate(self.ledger, self.mempool, now)
        self.fee_estimates: dict[int, int] = {}  # confirmation target -> sat per kvB
        self._listeners: list[Callable[[Event], None]] = []

    def close(self) -> None:
        """Remove the scratch directory; the object is of no use afterwards."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` for every event, in order; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # What the chain knows

    @property
    def height(self) -> int:
        return self.ledger.height

    @property
    def tip(self) -> StoredBlock:
        return self.ledger.tip

    def block(self, block_hash: bytes) -> StoredBlock | None:
        return self.ledger.blocks.get(block_hash)

    def coin(self, outpoint: Outpoint, *, with_mempool: bool = True) -> Coin | None:
        """The unspent output; with the mempool, also its outputs, and not what it spends."""
        if not with_mempool:
            return self.ledger.coins.get(outpoint)
        return None if outpoint in self.mempool.spenders else self.gate.coin(outpoint)

    def transaction(self, txid: bytes) -> tuple[ChainTransaction, StoredBlock | None] | None:
        """A transaction of the mempool or of the active chain, with its block."""
        if entry := self.mempool.entries.get(txid):
            return entry.tx, None
        if txid not in self.ledger.index:
            return None
        height, position = self.ledger.index[txid]
        block = self.ledger.at(height)
        return self.ledger.transactions(block)[position], block

    def fee_estimate(self, target: int) -> int:
        """Sat per kvB for a confirmation within `target` blocks: the nearest target set that is not longer."""
        at_most = [t for t in self.fee_estimates if t <= target]
        if at_most:
            return self.fee_estimates[max(at_most)]
        return self.fee_estimates[min(self.fee_estimates)] if self.fee_estimates else DEFAULT_FEE_SAT_PER_KVB

    # Transactions

    def submit(self, raw: bytes) -> bytes:
        """Take a transaction into the mempool; its txid. Raises Rejected, MalformedMessage."""
        return self.enter(self.test(raw))

    def enter(self, candidate: Candidate) -> bytes:
        """Take in what `test` just passed."""
        entry, left = self.gate.enter(candidate)
        self._tell_removed(left)
        self._tell(TransactionAdded(entry.tx, entry.sequence))
        return entry.tx.txid

    def submit_package(self, raws: Sequence[bytes]) -> PackageResult:
        """Take parents and their child together; raises Rejected when the package has no valid form."""
        result = submit_package(self.gate, [decode(raw) for raw in raws])
        self._tell_removed(result.left)
        for entry in result.entered:
            self._tell(TransactionAdded(entry.tx, entry.sequence))
        return result

    def test(self, raw: bytes) -> Candidate:
        """What `submit` would say, without doing it."""
        return self.gate.evaluate(decode(raw))

    def test_package(self, raws: Sequence[bytes]) -> list[Candidate | Rejected]:
        """Each transaction checked as if those before it had entered; nothing enters."""
        txs = [decode(raw) for raw in raws]
        check_package(txs)
        verdicts: list[Candidate | Rejected] = []
        for index, tx in enumerate(txs):
            try:
                parents = [t for t in txs[:index] if any(i.txid == t.txid for i in tx.inputs)]
                verdicts.append(self._evaluate_after(tx, parents) if parents else self.gate.evaluate(tx))
            except Rejected as why:
                verdicts.append(why)
        return verdicts

    # Blocks

    def mine(
        self, script: bytes, count: int = 1, raws: Sequence[bytes] | None = None, time_s: int | None = None
    ) -> list[bytes]:
        """Make blocks now, paying `script`, with the best of the mempool or exactly `raws`; their hashes."""
        hashes = []
        for _ in range(count):
            raw = self.template(script, raws, time_s)
            self.submit_block(raw)
            hashes.append(self.tip.hash)
            raws = None
        return hashes

    def bootstrap(self, script: bytes, count: int) -> None:
        """Make the first blocks ten minutes apart, the last one now."""
        for left in range(count - 1, -1, -1):
            self.mine(script, time_s=int(self.now()) - left * BLOCK_INTERVAL_S)

    def template(
        self, script: bytes, raws: Sequence[bytes] | None = None, time_s: int | None = None
    ) -> bytes:
        """The next block, not yet submitted."""
        tip, height = self.tip, self.height + 1
        if raws is None:
            txs = [self.mempool.entries[txid].tx for txid in select(self.mempool)]
        else:
            txs = [decode(raw) for raw in raws]
        reward_sat = subsidy_sat(height) + self._fees(txs)
        nonce = len(self.ledger.blocks)
        first = parse_transaction(coinbase(height, script, reward_sat, nonce, [tx.wtxid for tx in txs]))
        wanted_s = int(self.now()) if time_s is None else time_s
        return assemble(tip.hash, max(wanted_s, tip.median_time_s + 1), first, txs)

    def submit_block(self, raw: bytes) -> StoredBlock:
        """Give a block to the engine and follow where it goes; raises Rejected."""
        block = self.ledger.add(raw)
        self._follow()
        return block

    def invalidate(self, block_hash: bytes) -> None:
        """Treat a block and all that stands on it as invalid."""
        self.ledger.invalidate(self.ledger.blocks[block_hash])
        self._follow()

    def reconsider(self, block_hash: bytes) -> None:
        self.ledger.reconsider(self.ledger.blocks[block_hash])
        self._follow()

    # How it goes

    def _follow(self) -> None:
        before = self.tip.hash
        gone, come = self.ledger.follow_engine()
        returning: list[ChainTransaction] = []
        for block in gone:
            transactions = self.ledger.transactions(block)
            returning = [*transactions[1:], *returning]
            self._tell(BlockDisconnected(block, transactions))
        for block in come:
            transactions = self.ledger.transactions(block)
            self._clear(transactions)
            self._tell(BlockConnected(block, transactions))
        if gone:
            self._refill(returning)
        if self.tip.hash != before:
            self._tell(TipChanged(self.tip))

    def _clear(self, transactions: Sequence[ChainTransaction]) -> None:
        """Take out what a block confirmed, and what can never be valid beside it."""
        for tx in transactions:
            self.mempool.remove(tx.txid)
        for tx in transactions:
            doomed = self.mempool.with_descendants(self.mempool.conflicts(tx))
            self._tell_removed([e for txid in sorted(doomed) if (e := self.mempool.remove(txid))])

    def _refill(self, returning: Sequence[ChainTransaction]) -> None:
        """After a reorg: what the lost blocks held comes first, then what waited, as far as still valid."""
        waiting = list(self.mempool.entries.values())
        for entry in waiting:
            self.mempool.remove(entry.tx.txid)
        for tx in returning:
            if tx.txid not in self.ledger.index and (entry_ := self._readmit(tx)):
                self._tell(TransactionAdded(entry_.tx, entry_.sequence))
        self._tell_removed([entry for entry in waiting if not self._readmit(entry.tx)])

    def _readmit(self, tx: ChainTransaction) -> Entry | None:
        try:
            found = self.gate.prepare(tx)
            if self.mempool.conflicts(tx):
                return None
            self.gate.check_scripts(found)
        except Rejected:
            return None
        return self.gate.enter(found)[0]

    def _evaluate_after(self, tx: ChainTransaction, parents: Sequence[ChainTransaction]) -> Candidate:
        found = self.gate.prepare(tx, parents)
        self.gate.check_scripts(found)
        return found

    def _fees(self, txs: Sequence[ChainTransaction]) -> int:
        made = {(tx.txid, vout): output.sat for tx in txs for vout, output in enumerate(tx.outputs)}
        total = 0
        for tx in txs:
            for i in tx.inputs:
                coin = self.ledger.coins.get(i.outpoint)
                total += coin.sat if coin else made.get(i.outpoint, 0)
            total -= sum(output.sat for output in tx.outputs)
        return max(total, 0)

    def _tell_removed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._tell(TransactionRemoved(entry.tx, self.mempool.sequence))

    def _tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            listener(event)


def decode(raw: bytes) -> ChainTransaction:
    """Parse with our parser and the engine's: what one refuses, nobody takes."""
    tx = parse_transaction(raw)
    try:
        engine_txid = bytes(pbk.Transaction(raw).txid)
    except RuntimeError:
        raise MalformedMessage("TX decode failed") from None
    if engine_txid != tx.txid:
        raise MalformedMessage("TX decode failed")
    return tx
