"""The confirmed chain: every block known, the active branch, its coins and its transaction index.

What enters has passed the engine; this file only keeps account of what the engine decided.
"""

from pathlib import Path

from lnsim.chain.engine import Engine
from lnsim.chain.model import Coin, Outpoint, Rejected, StoredBlock
from node.bitcoin.block import HEADER_SIZE, Block, ChainTransaction, parse_block

MEDIAN_SPAN = 11
MAX_SCRIPT_SIZE = 10_000  # consensus: a longer output script can never be spent


class Ledger:
    def __init__(self, directory: Path) -> None:
        self.engine = Engine(directory)
        self.blocks: dict[bytes, StoredBlock] = {}
        self.active: list[bytes] = []
        self.coins: dict[Outpoint, Coin] = {}
        self.index: dict[bytes, tuple[int, int]] = {}
        self.invalid: set[bytes] = set()
        self._undo: dict[bytes, list[tuple[Outpoint, Coin]]] = {}
        genesis = self._store(self.engine.genesis())
        self.active.append(genesis.hash)  # its output is not spendable, hence no coins from it

    @property
    def tip(self) -> StoredBlock:
        return self.blocks[self.active[-1]]

    @property
    def height(self) -> int:
        return len(self.active) - 1

    def at(self, height: int) -> StoredBlock:
        return self.blocks[self.active[height]]

    def is_active(self, block: StoredBlock) -> bool:
        return block.height <= self.height and self.active[block.height] == block.hash

    def transactions(self, block: StoredBlock) -> tuple[ChainTransaction, ...]:
        return parse_block(block.raw).transactions

    def add(self, raw: bytes) -> StoredBlock:
        """Hand a block to the engine and keep it; the active chain follows in `follow_engine`."""
        previous = raw[4:36]
        if previous not in self.blocks:
            raise Rejected("prev-blk-not-found")
        if previous in self.invalid or self._has_invalid_ancestor(self.blocks[previous]):
            raise Rejected("bad-prevblk")
        if previous != self.tip.hash:
            for ancestor in self._branch(self.blocks[previous]):
                if not self.is_active(ancestor):  # an engine that was restarted has forgotten it
                    self.engine.connect(ancestor.raw)
        self.engine.connect(raw)
        return self._store(raw)

    def invalidate(self, block: StoredBlock) -> None:
        self.invalid.add(block.hash)
        best = self._best_valid()
        if self.engine.tip != best.hash:
            self.engine.restart(b.raw for b in self._branch(best)[1:])

    def reconsider(self, block: StoredBlock) -> None:
        related = {b.hash for b in self._branch(block)}
        related |= {h for h in self.invalid if block in self._branch(self.blocks[h])}
        self.invalid -= related
        for candidate in self._branch(self._best_valid())[1:]:
            self.engine.connect(candidate.raw)

    def follow_engine(self) -> tuple[list[StoredBlock], list[StoredBlock]]:
        """Make the engine's tip ours; the blocks that left (top first) and those that came."""
        branch = self._branch(self.blocks[self.engine.tip])
        gone: list[StoredBlock] = []
        while self.tip.height >= len(branch) or branch[self.tip.height].hash != self.tip.hash:
            gone.append(self._disconnect())
        come = branch[self.height + 1 :]
        for block in come:
            self._connect(block)
        return gone, come

    def _store(self, raw: bytes) -> StoredBlock:
        parsed = parse_block(raw)
        if parsed.hash in self.blocks:
            return self.blocks[parsed.hash]
        previous = self.blocks.get(parsed.previous)
        block = StoredBlock(
            hash=parsed.hash,
            previous=parsed.previous,
            height=previous.height + 1 if previous else 0,
            time_s=parsed.time_s,
            median_time_s=self._median_time(parsed, previous),
            header=raw[:HEADER_SIZE],
            raw=raw,
            txids=tuple(tx.txid for tx in parsed.transactions),
            order=len(self.blocks),
        )
        self.blocks[block.hash] = block
        return block

    def _median_time(self, block: Block, previous: StoredBlock | None) -> int:
        times = [block.time_s]
        while previous and len(times) < MEDIAN_SPAN:
            times.append(previous.time_s)
            previous = self.blocks.get(previous.previous)
        return sorted(times)[len(times) // 2]

    def _connect(self, block: StoredBlock) -> None:
        undo: list[tuple[Outpoint, Coin]] = []
        for position, tx in enumerate(self.transactions(block)):
            if position:
                undo += [(i.outpoint, self.coins.pop(i.outpoint)) for i in tx.inputs]
            for vout, output in enumerate(tx.outputs):
                if is_spendable(output.script):
                    coin = Coin(output.sat, output.script, block.height, position == 0)
                    self.coins[tx.txid, vout] = coin
            self.index[tx.txid] = (block.height, position)
        self._undo[block.hash] = undo
        self.active.append(block.hash)

    def _disconnect(self) -> StoredBlock:
        block = self.tip
        for tx in self.transactions(block):
            for vout in range(len(tx.outputs)):
                self.coins.pop((tx.txid, vout), None)
            del self.index[tx.txid]
        # An output made and spent inside this block comes back here only to be removed again.
        created = set(block.txids)
        for outpoint, coin in self._undo.pop(block.hash):
            if outpoint[0] not in created:
                self.coins[outpoint] = coin
        self.active.pop()
        return block

    def _branch(self, tip: StoredBlock) -> list[StoredBlock]:
        """The blocks from genesis to `tip`."""
        branch: list[StoredBlock] = []
        cursor: StoredBlock | None = tip
        while cursor and not self.is_active(cursor):
            branch.append(cursor)
            cursor = self.blocks.get(cursor.previous)
        common = [self.at(height) for height in range(cursor.height + 1)] if cursor else []
        return common + branch[::-1]

    def _has_invalid_ancestor(self, block: StoredBlock) -> bool:
        return bool(self.invalid) and any(b.hash in self.invalid for b in self._branch(block))

    def _best_valid(self) -> StoredBlock:
        """The highest block without an invalid ancestor (regtest: height is work), first seen first."""
        good: dict[bytes, bool] = {}
        for block in self.blocks.values():  # in order of arrival: a parent comes before its child
            good[block.hash] = block.hash not in self.invalid and good.get(block.previous, True)
        return max((b for b in self.blocks.values() if good[b.hash]), key=lambda b: (b.height, -b.order))


def is_spendable(script: bytes) -> bool:
    return not script.startswith(b"\x6a") and len(script) <= MAX_SCRIPT_SIZE
