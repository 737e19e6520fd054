"""May this transaction enter the mempool? Core's checks, in Core's order."""

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from lnsim.chain.consensus import check_shape, fee_of, is_final, sequence_locks_hold
from lnsim.chain.family import check_family, check_truc
from lnsim.chain.ledger import Ledger
from lnsim.chain.mempool import MAX_MEMPOOL_VSIZE, Entry, Mempool
from lnsim.chain.model import Coin, Outpoint, Rejected
from lnsim.chain.replacement import check_replacement
from lnsim.chain.sigops import charged_vsize, check_sigops
from lnsim.chain.standard import check_standard, check_standard_inputs
from node.bitcoin.block import ChainTransaction

MIN_RELAY_SAT_PER_KVB = 1_000
INPUTS_MISSING = "bad-txns-inputs-missingorspent"


class Candidate(Struct, frozen=True):
    """A transaction that passed, and what its entry would do."""

    tx: ChainTransaction
    fee_sat: int
    coins: tuple[Coin, ...]
    sigops: int
    evicted: frozenset[bytes] = frozenset()

    @property
    def vsize(self) -> int:
        return charged_vsize(self.tx.weight, self.sigops)


class Gate:
    """The way into one mempool."""

    def __init__(self, ledger: Ledger, mempool: Mempool, now: Callable[[], float]) -> None:
        self.ledger = ledger
        self.mempool = mempool
        self.now = now

    def evaluate(self, tx: ChainTransaction) -> Candidate:
        """All checks for a transaction alone; raises Rejected."""
        found = self.prepare(tx)
        conflicts = self.mempool.conflicts(tx)
        check_min_fee(found.fee_sat, found.vsize)
        conflicts |= check_truc(self.mempool, tx, conflicts)
        evicted = check_replacement(self.mempool, tx, found.fee_sat, found.vsize, conflicts)
        check_family(self.mempool, tx, evicted)
        self.check_room(found.vsize)
        self.check_scripts(found)
        return replace(found, evicted=frozenset(evicted))

    def prepare(self, tx: ChainTransaction, package: Sequence[ChainTransaction] = ()) -> Candidate:
        """Everything that money and families do not decide; `package` are parents that come along."""
        ledger = self.ledger
        check_shape(tx)
        check_standard(tx)
        tip = ledger.tip
        if not is_final(tx, tip.height + 1, tip.median_time_s):
            raise Rejected("non-final")
        self._check_unknown(tx)
        coins = tuple(self._coin(tx, i.outpoint, package) for i in tx.inputs)
        fee_sat = fee_of(tx, coins, tip.height + 1)
        if not sequence_locks_hold(
            tx, coins, tip.height + 1, tip.median_time_s, lambda h: ledger.at(h).median_time_s
        ):
            raise Rejected("non-BIP68-final")
        check_standard_inputs(tx, coins)
        return Candidate(tx, fee_sat, coins, check_sigops(tx, coins))

    def check_scripts(self, found: Candidate) -> None:
        refused = self.ledger.engine.refused_input(found.tx.raw, found.coins)
        if refused is not None:
            raise Rejected(f"mandatory-script-verify-flag-failed (script of input {refused} does not hold)")

    def check_room(self, vsize: int) -> None:
        if self.mempool.vsize + vsize > MAX_MEMPOOL_VSIZE:
            raise Rejected("mempool full")

    def enter(self, found: Candidate) -> tuple[Entry, list[Entry]]:
        """Let a candidate in; its entry, and the entries that had to leave for it."""
        left = [entry for txid in sorted(found.evicted) if (entry := self.mempool.remove(txid))]
        entry = self.mempool.add(found.tx, found.fee_sat, found.sigops, int(self.now()), self.ledger.height)
        return entry, left

    def coin(self, outpoint: Outpoint) -> Coin | None:
        return self.ledger.coins.get(outpoint) or self.mempool.coin(outpoint)

    def _check_unknown(self, tx: ChainTransaction) -> None:
        if tx.wtxid in self.mempool.wtxids:
            raise Rejected("txn-already-in-mempool")
        if tx.txid in self.mempool:
            raise Rejected("txn-same-nonwitness-data-in-mempool")

    def _coin(self, tx: ChainTransaction, outpoint: Outpoint, package: Sequence[ChainTransaction]) -> Coin:
        coin = self.coin(outpoint)
        if coin is not None:
            return coin
        for parent in package:
            if parent.txid == outpoint[0] and outpoint[1] < len(parent.outputs):
                output = parent.outputs[outpoint[1]]
                return Coin(output.sat, output.script, None)
        if any((tx.txid, vout) in self.ledger.coins for vout in range(len(tx.outputs))):
            raise Rejected("txn-already-known")
        raise Rejected(INPUTS_MISSING)


def check_min_fee(fee_sat: int, vsize: int) -> None:
    needed = vsize * MIN_RELAY_SAT_PER_KVB // 1000
    if fee_sat < needed:
        raise Rejected("min relay fee not met", f"{fee_sat} < {needed}", wants_fee=True)
