"""Choosing coins and change for a transaction."""

from collections.abc import Mapping, Sequence
from hashlib import sha256

from msgspec import Struct

from lnsim.chain.model import Coin, Outpoint
from lnsim.chain.standard import dust_limit_sat
from lnsim.chain.wallet import Wallet, WalletCoin
from node.bitcoin.block import serialize_transaction
from node.bitcoin.transaction import Input, Output
from node.errors import Refused

SEQUENCE_REPLACEABLE = 0xFFFFFFFD
OUTPOINT_WEIGHT = 164  # an input without script and witness
P2WPKH_INPUT_WEIGHT = 272  # with a 72-byte signature
WITNESS_MARKER_WEIGHT = 2
CHANGE_VSIZE = 31
P2WPKH_FORM = b"\x00\x14" + bytes(20)
MAX_CHOSEN = 1_000  # inputs; more would not fit a standard transaction


class FundingOptions(Struct, frozen=True, kw_only=True):
    feerate_sat_per_kvb: int
    change_script: bytes | None = None
    change_position: int | None = None
    lock: bool = False
    add_inputs: bool = True
    min_depth: int = 0
    subtract_from: tuple[int, ...] = ()
    sequence: int = SEQUENCE_REPLACEABLE
    input_weights: Mapping[Outpoint, int] = {}


class Funded(Struct, frozen=True):
    raw: bytes
    fee_sat: int
    change_position: int | None


def fund(
    wallet: Wallet,
    version: int,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    locktime: int,
    options: FundingOptions,
) -> Funded:
    """Add coins and change so that the signed transaction pays the feerate; raises Refused."""
    fixed = [_fixed(wallet, i, options) for i in inputs]
    base_weight = _base_weight(version, outputs, locktime) + sum(weight for _, weight in fixed)
    have_sat = sum(coin.sat for coin, _ in fixed)
    need_sat = sum(o.sat for o in outputs)
    taken = {i.outpoint for i in inputs}
    pool = [c for c in wallet.spendable(options.min_depth) if c.outpoint not in taken]
    chosen = _choose(pool if options.add_inputs else [], need_sat - have_sat, base_weight, options)
    weight = base_weight + len(chosen) * P2WPKH_INPUT_WEIGHT
    have_sat += sum(c.coin.sat for c in chosen)
    all_inputs = [*inputs, *(Input(*c.outpoint, options.sequence) for c in chosen)]
    final, fee_sat, position = _with_change(wallet, list(outputs), have_sat, weight, options)
    if options.lock:
        wallet.locked |= {i.outpoint for i in all_inputs}
    return Funded(serialize_transaction(version, all_inputs, final, locktime), fee_sat, position)


def _fixed(wallet: Wallet, i: Input, options: FundingOptions) -> tuple[Coin, int]:
    coin = wallet.chain.coin(i.outpoint)
    if coin is None:
        raise Refused("Insufficient funds")
    if wallet.owns(coin.script):
        return coin, P2WPKH_INPUT_WEIGHT
    if i.outpoint not in options.input_weights:
        name = f"{i.txid[::-1].hex()[:10]}, {i.vout}"
        raise Refused(f"Not solvable pre-selected input COutPoint({name})")
    return coin, options.input_weights[i.outpoint]


def _base_weight(version: int, outputs: Sequence[Output], locktime: int) -> int:
    return 4 * len(serialize_transaction(version, [], outputs, locktime)) + WITNESS_MARKER_WEIGHT


def _fee(weight: int, options: FundingOptions) -> int:
    vsize = (weight + 3) // 4
    return -(-vsize * options.feerate_sat_per_kvb // 1000)


def _choose(
    pool: list[WalletCoin], missing_sat: int, base_weight: int, options: FundingOptions
) -> list[WalletCoin]:
    """The smallest single coin that is enough, else the largest coins together."""

    def needed(count: int) -> int:
        fee = 0 if options.subtract_from else _fee(base_weight + count * P2WPKH_INPUT_WEIGHT, options)
        return missing_sat + fee

    if needed(0) <= 0:
        return []
    by_size = sorted(pool, key=lambda c: (c.coin.sat, c.outpoint))
    single = next((c for c in by_size if c.coin.sat >= needed(1)), None)
    if single:
        return [single]
    chosen: list[WalletCoin] = []
    total = 0
    for coin in reversed(by_size[-MAX_CHOSEN:]):
        chosen.append(coin)
        total += coin.coin.sat
        if total >= needed(len(chosen)):
            return chosen
    raise Refused("Insufficient funds")


def _with_change(
    wallet: Wallet, outputs: list[Output], have_sat: int, weight: int, options: FundingOptions
) -> tuple[list[Output], int, int | None]:
    """The outputs with change where it is worth an output; the fee; the change's place."""
    fee_sat = _fee(weight + 4 * CHANGE_VSIZE, options)
    paid = _subtract(outputs, fee_sat, options.subtract_from)
    change_sat = have_sat - sum(o.sat for o in paid) - fee_sat
    script = options.change_script
    if change_sat < dust_limit_sat(script or P2WPKH_FORM):
        paid = _subtract(outputs, _fee(weight, options), options.subtract_from)
        return paid, have_sat - sum(o.sat for o in paid), None
    if script is None:
        script = wallet.keys.new_script(change=True)
    position = options.change_position
    if position is None:  # anywhere, as Core does, so that nobody relies on a place
        position = sha256(script).digest()[0] % (len(paid) + 1)
    paid.insert(position, Output(change_sat, script))
    return paid, fee_sat, position


def _subtract(outputs: list[Output], fee_sat: int, places: Sequence[int]) -> list[Output]:
    outputs = list(outputs)
    if not places:
        return outputs
    share, rest = divmod(fee_sat, len(places))
    for n, place in enumerate(places):
        output = outputs[place]
        outputs[place] = Output(output.sat - share - (rest if n == 0 else 0), output.script)
        if outputs[place].sat < dust_limit_sat(output.script):
            raise Refused("The transaction amount is too small to pay the fee")
    return outputs
