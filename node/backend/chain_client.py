"""What the backend asks of a chain: bitcoind answers it in production, the embedded chain in tests and simulations."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from node.errors import Refused

Outpoint = tuple[bytes, int]


class ChainUnavailable(Refused):
    """Nobody answered. A command that was on its way may or may not have taken effect."""


class CredentialsRefused(ChainUnavailable):
    """Somebody answers, and will not have us."""


class RpcError(Refused):
    """The chain refused, with bitcoind's error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BlockId(Struct, frozen=True):
    height: int
    hash: bytes


class ChainState(Struct, frozen=True):
    """How far the chain's server is."""

    tip: BlockId
    headers: int  # height up to which it knows headers
    time_s: int  # of the last block, as its miner said
    downloading: bool  # by its own estimate far from the tip
    pruned_below: int | None = None  # blocks below this height are gone; None: it keeps all


class UnspentOutput(Struct, frozen=True):
    sat: int
    script: bytes
    confirmations: int  # 0: in the mempool


class FundedTransaction(Struct, frozen=True):
    """A signed transaction whose inputs are locked in the wallet until it is sent or unlocked."""

    tx: bytes
    output_index: int
    fee_sat: int


class ChainClient(Protocol):
    """Hashes are in internal order, feerates in sat per 1000 weight. Every method raises ChainUnavailable."""

    async def best_block(self) -> BlockId: ...

    async def state(self) -> ChainState: ...

    async def block_hashes(self, heights: Sequence[int]) -> list[bytes | None]:
        """The active chain's hash at each height; None above its tip."""
        ...

    async def block(self, block_hash: bytes) -> bytes | None:
        """A block of any branch, serialized; None if unknown."""
        ...

    async def block_txids(self, block_hash: bytes) -> tuple[bytes, ...] | None: ...

    async def previous_block(self, block_hash: bytes) -> BlockId | None:
        """The parent of a block of any branch; None if unknown."""
        ...

    async def txout(self, txid: bytes, vout: int, *, with_mempool: bool = True) -> UnspentOutput | None: ...

    async def raw_transaction(self, txid: bytes, block_hash: bytes | None = None) -> bytes | None:
        """From the mempool, the given block, or an index of all transactions; None if not found there."""
        ...

    async def mempool_spenders(self, outpoints: Sequence[Outpoint]) -> list[bytes | None]:
        """For each outpoint the txid of the mempool that spends it."""
        ...

    async def send_raw_transaction(self, tx: bytes) -> bytes:
        """The txid; sending again what is known is no error. Raises RpcError."""
        ...

    async def submit_package(self, txs: Sequence[bytes]) -> None:
        """Parents and last their child, which pays for all. Raises RpcError with the first reason."""
        ...

    async def fee_estimate(self, target: int) -> int | None:
        """Sat per 1000 weight to confirm within `target` blocks; None where the chain has no estimate."""
        ...

    async def fund(self, script: bytes, amount_sat: int, feerate_per_kw: int) -> FundedTransaction:
        """A signed transaction paying `script`, its coins locked. Raises RpcError (no funds)."""
        ...

    async def add_inputs(
        self, tx: bytes, feerate_per_kw: int, input_weights: Mapping[Outpoint, int]
    ) -> bytes:
        """Add wallet coins (locked) and change to a transaction; the weights are of inputs not the wallet's."""
        ...

    async def sign(self, tx: bytes, previous: Mapping[Outpoint, UnspentOutput]) -> bytes:
        """Sign the wallet's inputs; `previous` are outputs that the chain may not know."""
        ...

    async def unlock(self, tx: bytes) -> None:
        """Give back the coins that `fund` or `add_inputs` locked for a transaction that will not be sent."""
        ...

    async def locked(self) -> frozenset[Outpoint]:
        """The wallet's coins that are kept from being spent, by whomever."""
        ...

    async def unlock_coins(self, outpoints: Iterable[Outpoint]) -> None:
        """Give back those of them that are locked."""
        ...

    async def new_address(self) -> str: ...

    async def new_script(self) -> bytes: ...

    async def send_to_address(self, address: str, amount_sat: int, feerate_per_kw: int) -> bytes: ...

    async def wallet_balance(self) -> int:
        """Satoshi that can be spent now."""
        ...
