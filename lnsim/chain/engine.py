"""Bitcoin Core's validation engine, regtest, with its databases in memory."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pbk
import pbk.capi.bindings as kernel
from pbk.script import PrecomputedTransactionData

from lnsim.chain.model import Coin, Rejected

kernel.btck_logging_disable()  # otherwise it buffers lines that nobody will read

FLAGS = pbk.ScriptVerificationFlags.ALL


class Engine:
    """One chainstate. It cannot go back by itself: `restart` replays the blocks that shall stand."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._generation = 0
        self._verdict = ""
        self._callbacks = pbk.ValidationInterfaceCallbacks(block_checked=self._checked)
        self._context = pbk.make_context(pbk.ChainType.REGTEST, self._callbacks)
        self._manager = self._open()

    @property
    def tip(self) -> bytes:
        chain = self._manager.get_active_chain()
        return bytes(chain.block_tree_entries[chain.height].block_hash)

    def genesis(self) -> bytes:
        entry = self._manager.get_active_chain().block_tree_entries[0]
        return bytes(self._manager.blocks[entry])

    def connect(self, raw: bytes) -> None:
        """Have the engine check and store a block; raises Rejected. Whether it became the tip says `tip`."""
        self._verdict = ""
        try:
            block = pbk.Block(raw)
        except RuntimeError:
            raise Rejected("Block decode failed") from None
        try:
            self._manager.process_block(block)
        except pbk.ProcessBlockException:
            raise Rejected(self._verdict or "rejected") from None
        if self._verdict:
            raise Rejected(self._verdict)

    def restart(self, blocks: Iterable[bytes]) -> None:
        """Begin again from the genesis block with exactly these blocks."""
        old = self._directory / str(self._generation)
        self._generation += 1
        self._manager = self._open()
        shutil.rmtree(old, ignore_errors=True)
        for raw in blocks:
            self.connect(raw)

    def refused_input(self, raw: bytes, spent: Sequence[Coin]) -> int | None:
        """The first input whose script the engine refuses; None when all of them hold."""
        return next((n for n, holds in enumerate(self._verify(raw, spent)) if not holds), None)

    def refused_inputs(self, raw: bytes, spent: Sequence[Coin]) -> list[int]:
        return [n for n, holds in enumerate(self._verify(raw, spent)) if not holds]

    def _verify(self, raw: bytes, spent: Sequence[Coin]) -> Iterator[bool]:
        tx = pbk.Transaction(raw)
        scripts = [pbk.ScriptPubkey(coin.script) for coin in spent]
        outputs = [
            pbk.TransactionOutput(script, coin.sat) for script, coin in zip(scripts, spent, strict=True)
        ]
        data = PrecomputedTransactionData(tx, outputs)
        for index, (script, coin) in enumerate(zip(scripts, spent, strict=True)):
            yield bool(script.verify(coin.sat, tx, data, index, FLAGS))

    def _open(self) -> pbk.ChainstateManager:
        path = self._directory / str(self._generation)
        options = pbk.ChainstateManagerOptions(self._context, str(path), str(path / "blocks"))
        options.update_block_tree_db_in_memory(True)
        options.update_chainstate_db_in_memory(True)
        options.set_worker_threads_num(0)
        return pbk.ChainstateManager(options)

    def _checked(self, _user: object, _block: pbk.Block, state: pbk.BlockValidationState) -> None:
        if state.validation_mode != pbk.ValidationMode.VALID:
            self._verdict = f"block-{state.block_validation_result.name.lower().replace('_', '-')}"
