"""Closing transactions (BOLT 3): the older form of closing_signed, and those of option_simple_close."""

from collections.abc import Collection, Sequence
from enum import StrEnum

from msgspec import Struct

from node.bitcoin.commitment import Side, signed_funding_spend
from node.bitcoin.fees import script_dust_sat
from node.bitcoin.scripts import funding_script, is_op_return
from node.bitcoin.transaction import (
    FINAL_SEQUENCE,
    REPLACEABLE_SEQUENCE,
    Input,
    Output,
    Transaction,
    sighash,
    txid,
)
from node.errors import PeerFault

# BOLT 3, appendix A: version, counts, funding input and locktime; marker, flag and the multisig witness
_FIXED_WEIGHT = 4 * (4 + 1 + 41 + 1 + 4) + 2 + 222
_OUTPUT_OVERHEAD_WEIGHT = 4 * (8 + 1)


class Payout(Struct, frozen=True):
    """What one side has in the channel at its end, and where it wants it."""

    script: bytes
    balance_msat: int

    @property
    def balance_sat(self) -> int:
        return self.balance_msat // 1000


class ClosingVariant(StrEnum):
    """Which outputs a simple close has; named as the TLVs that carry their signatures."""

    CLOSER_OUTPUT_ONLY = "closer_output_only"
    CLOSEE_OUTPUT_ONLY = "closee_output_only"
    CLOSER_AND_CLOSEE_OUTPUTS = "closer_and_closee_outputs"


class ClosingTransaction(Struct, frozen=True):
    """Unsigned, and what both sides sign of it."""

    tx: bytes
    txid: bytes
    sighash: bytes


def closing_weight(scripts: Collection[bytes]) -> int:
    """The most that a closing transaction paying to these scripts weighs."""
    return _FIXED_WEIGHT + sum(_OUTPUT_OVERHEAD_WEIGHT + 4 * len(script) for script in scripts)


def closing_transaction(
    side: Side, holder: Payout, other: Payout, fee_sat: int, *, holder_output: bool = True
) -> ClosingTransaction:
    """What `side`'s holder signs in closing_signed: the opener pays, the holder's dust limit counts.

    The holder may leave out its own output. PeerFault when the opener cannot pay, or nothing would be left.
    """
    holder_sat = holder.balance_sat - (fee_sat if side.holder_is_opener else 0)
    other_sat = other.balance_sat - (0 if side.holder_is_opener else fee_sat)
    _check_fee(min(holder_sat, other_sat))
    paid = [Output(other_sat, other.script)]
    if holder_output:
        paid.append(Output(holder_sat, holder.script))
    return _closing(side, [output for output in paid if output.sat >= side.dust_limit_sat], FINAL_SEQUENCE, 0)


def simple_closing_transaction(
    side: Side,
    variant: ClosingVariant,
    closer: Payout,
    closee: Payout,
    *,
    fee_sat: int,
    locktime: int,
) -> ClosingTransaction:
    """What both sign in closing_complete and closing_sig; the closer pays, whoever opened.

    PeerFault when the closer cannot pay the fee.
    """
    _check_fee(closer.balance_sat - fee_sat)
    paid = []
    if variant is not ClosingVariant.CLOSEE_OUTPUT_ONLY:
        paid.append(_simple_output(closer, fee_sat))
    if variant is not ClosingVariant.CLOSER_OUTPUT_ONLY:
        paid.append(_simple_output(closee, 0))
    return _closing(side, paid, REPLACEABLE_SEQUENCE, locktime)


def offered_variants(closer: Payout, closee: Payout, fee_sat: int) -> tuple[ClosingVariant, ...]:
    """The variants that a closer signs in closing_complete (BOLT 2); the lesser side leaves out its own dust."""
    if closer.balance_msat < closee.balance_msat:
        if _is_dust(_simple_output(closer, fee_sat)):
            return (ClosingVariant.CLOSEE_OUTPUT_ONLY,)
        return (ClosingVariant.CLOSER_AND_CLOSEE_OUTPUTS,)
    if _is_dust(_simple_output(closee, 0)):
        return (ClosingVariant.CLOSER_OUTPUT_ONLY,)
    return ClosingVariant.CLOSER_OUTPUT_ONLY, ClosingVariant.CLOSER_AND_CLOSEE_OUTPUTS


def accepted_variant(closee: Payout, offered: Collection[ClosingVariant]) -> ClosingVariant:
    """The variant that the closee signs, out of those the closer signed; PeerFault when it is not there."""
    if _is_dust(_simple_output(closee, 0)):
        chosen = ClosingVariant.CLOSER_OUTPUT_ONLY
    elif ClosingVariant.CLOSER_AND_CLOSEE_OUTPUTS in offered:
        chosen = ClosingVariant.CLOSER_AND_CLOSEE_OUTPUTS
    else:
        chosen = ClosingVariant.CLOSEE_OUTPUT_ONLY
    if chosen not in offered:
        raise PeerFault(f"closing_complete lacks the signature for {chosen}")
    return chosen


def signed_closing(
    closing: ClosingTransaction, side: Side, holder_signature: bytes, other_signature: bytes
) -> bytes:
    return signed_funding_spend(closing.tx, side, holder_signature, other_signature)


def _simple_output(payout: Payout, fee_sat: int) -> Output:
    # BOLT 3: an OP_RETURN gets nothing, so that its balance goes to the fee
    sat = 0 if is_op_return(payout.script) else payout.balance_sat - fee_sat
    return Output(sat, payout.script)


def _is_dust(output: Output) -> bool:
    return output.sat < script_dust_sat(output.script)


def _check_fee(left_sat: int) -> None:
    if left_sat < 0:
        raise PeerFault("the closing fee exceeds the balance of the side that pays it")


def _closing(side: Side, outputs: Sequence[Output], sequence: int, locktime: int) -> ClosingTransaction:
    if not outputs:
        raise PeerFault("the closing transaction would have no output")
    tx = Transaction(
        version=2,
        inputs=(Input(side.funding_txid, side.funding_output_index, sequence),),
        outputs=tuple(sorted(outputs, key=lambda output: (output.sat, output.script))),
        locktime=locktime,
    ).serialize()
    script = funding_script(side.holder_funding_point, side.other_funding_point)
    return ClosingTransaction(tx, txid(tx), sighash(tx, 0, script, side.funding_sat))
