"""What the embedded chain is made of: coins, blocks, events, and the refusal."""

from msgspec import Struct

from node.bitcoin.block import ChainTransaction
from node.errors import Refused

Outpoint = tuple[bytes, int]

COIN = 100_000_000
MAX_MONEY_SAT = 21_000_000 * COIN
COINBASE_MATURITY = 100


class Coin(Struct, frozen=True):
    """An unspent output; `height` is None while its transaction waits in the mempool."""

    sat: int
    script: bytes
    height: int | None
    coinbase: bool = False


class StoredBlock(Struct, frozen=True):
    """A block of any branch; `order` is the order of arrival, which breaks ties like Core's first seen."""

    hash: bytes
    previous: bytes
    height: int
    time_s: int
    median_time_s: int
    header: bytes
    raw: bytes
    txids: tuple[bytes, ...]
    order: int


class BlockConnected(Struct, frozen=True):
    block: StoredBlock
    transactions: tuple[ChainTransaction, ...]


class BlockDisconnected(Struct, frozen=True):
    block: StoredBlock
    transactions: tuple[ChainTransaction, ...]


class TransactionAdded(Struct, frozen=True):
    tx: ChainTransaction
    sequence: int


class TransactionRemoved(Struct, frozen=True):
    """A transaction left the mempool for another reason than a block."""

    tx: ChainTransaction
    sequence: int


class TipChanged(Struct, frozen=True):
    """The active chain ends elsewhere now; one per change, however many blocks it took."""

    block: StoredBlock


Event = BlockConnected | BlockDisconnected | TransactionAdded | TransactionRemoved | TipChanged


class Rejected(Refused):
    """A transaction or block that Core would not take, with Core's reason and detail."""

    def __init__(self, reason: str, detail: str = "", *, wants_fee: bool = False) -> None:
        super().__init__(f"{reason}, {detail}" if detail else reason)
        self.reason = reason
        self.wants_fee = wants_fee  # a package may still carry it
