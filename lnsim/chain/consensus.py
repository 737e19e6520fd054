"""The consensus rules that are the caller's of the engine: shape, values, maturity, lock times.

Reasons are spelled as Core spells them. The engine checks all of this again when a block is made.
"""

from collections.abc import Callable, Sequence

from lnsim.chain.model import COINBASE_MATURITY, MAX_MONEY_SAT, Coin, Rejected
from node.bitcoin.block import ChainTransaction

MAX_BLOCK_WEIGHT = 4_000_000
LOCKTIME_IS_TIME = 500_000_000
SEQUENCE_FINAL = 0xFFFFFFFF
SEQUENCE_DISABLED = 1 << 31
SEQUENCE_IS_TIME = 1 << 22
SEQUENCE_MASK = 0xFFFF
SEQUENCE_GRANULARITY = 9  # BIP 68: units of 512 seconds
NULL_OUTPOINT = (bytes(32), 0xFFFFFFFF)


def check_shape(tx: ChainTransaction) -> None:
    """What holds for a transaction alone."""
    if not tx.inputs:
        raise Rejected("bad-txns-vin-empty")
    if not tx.outputs:
        raise Rejected("bad-txns-vout-empty")
    if tx.weight > MAX_BLOCK_WEIGHT:
        raise Rejected("bad-txns-oversize")
    total = 0
    for output in tx.outputs:
        if output.sat < 0:
            raise Rejected("bad-txns-vout-negative")
        if output.sat > MAX_MONEY_SAT:
            raise Rejected("bad-txns-vout-toolarge")
        total += output.sat
    if total > MAX_MONEY_SAT:
        raise Rejected("bad-txns-txouttotal-toolarge")
    outpoints = [i.outpoint for i in tx.inputs]
    if len(set(outpoints)) != len(outpoints):
        raise Rejected("bad-txns-inputs-duplicate")
    if is_coinbase(tx):
        raise Rejected("coinbase")
    if NULL_OUTPOINT in outpoints:
        raise Rejected("bad-txns-prevout-null")


def is_coinbase(tx: ChainTransaction) -> bool:
    return len(tx.inputs) == 1 and tx.inputs[0].outpoint == NULL_OUTPOINT


def is_final(tx: ChainTransaction, height: int, median_time_s: int) -> bool:
    """Whether a block at `height` whose predecessor has this median time may hold the transaction."""
    if tx.locktime == 0:
        return True
    limit = height if tx.locktime < LOCKTIME_IS_TIME else median_time_s
    return tx.locktime < limit or all(i.sequence == SEQUENCE_FINAL for i in tx.inputs)


def sequence_locks_hold(
    tx: ChainTransaction,
    coins: Sequence[Coin],
    height: int,
    median_time_s: int,
    median_time_at: Callable[[int], int],
) -> bool:
    """BIP 68 for a block at `height`; a coin of the mempool counts as confirmed in that block."""
    if tx.version < 2:
        return True
    for i, coin in zip(tx.inputs, coins, strict=True):
        if i.sequence & SEQUENCE_DISABLED:
            continue
        age = i.sequence & SEQUENCE_MASK
        base = height if coin.height is None else coin.height
        if i.sequence & SEQUENCE_IS_TIME:
            since_s = median_time_at(max(base - 1, 0))
            if since_s + (age << SEQUENCE_GRANULARITY) - 1 >= median_time_s:
                return False
        elif base + age - 1 >= height:
            return False
    return True


def fee_of(tx: ChainTransaction, coins: Sequence[Coin], height: int) -> int:
    """The fee in satoshi, maturity and value ranges checked for a block at `height`."""
    for coin in coins:
        if coin.coinbase and coin.height is not None and height - coin.height < COINBASE_MATURITY:
            depth = height - coin.height
            raise Rejected(
                "bad-txns-premature-spend-of-coinbase", f"tried to spend coinbase at depth {depth}"
            )
    value_in, value_out = sum(c.sat for c in coins), sum(o.sat for o in tx.outputs)
    if value_in > MAX_MONEY_SAT:
        raise Rejected("bad-txns-inputvalues-outofrange")
    if value_in < value_out:
        raise Rejected("bad-txns-in-belowout", f"value in ({btc(value_in)}) < value out ({btc(value_out)})")
    return value_in - value_out


def btc(sat: int) -> str:
    """An amount as Core prints it."""
    sign = "-" if sat < 0 else ""
    return f"{sign}{abs(sat) // 100_000_000}.{abs(sat) % 100_000_000:08d}"
