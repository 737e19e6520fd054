"""Both forms of closing, each transaction tried on Bitcoin Core's engine."""

import pbk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.bitcoin.closing import (
    ClosingTransaction,
    ClosingVariant,
    Payout,
    accepted_variant,
    closing_transaction,
    closing_weight,
    offered_variants,
    signed_closing,
    simple_closing_transaction,
)
from node.bitcoin.commitment import Side
from node.bitcoin.fees import script_dust_sat
from node.bitcoin.scripts import funding_script, p2wsh
from node.bitcoin.transaction import Output, parse, weight
from node.crypto.keys import public_key, sign
from node.errors import PeerFault

HOLDER, OTHER = bytes([1] * 32), bytes([2] * 32)
FUNDING_SAT = 1_000_000
P2WPKH, P2WSH, P2TR = b"\x00\x14" + bytes(20), b"\x00\x20" + bytes(32), b"\x51\x20" + bytes(32)
OP_RETURN = b"\x6a\x06" + bytes(6)
BOTH = ClosingVariant.CLOSER_AND_CLOSEE_OUTPUTS
CLOSER_ONLY = ClosingVariant.CLOSER_OUTPUT_ONLY
CLOSEE_ONLY = ClosingVariant.CLOSEE_OUTPUT_ONLY


def side(holder_is_opener: bool = True, dust_limit_sat: int = 354) -> Side:
    return Side(
        anchors=True,
        funding_txid=bytes([7] * 32),
        funding_output_index=1,
        funding_sat=FUNDING_SAT,
        holder_funding_point=public_key(HOLDER),
        other_funding_point=public_key(OTHER),
        holder_is_opener=holder_is_opener,
        opener_payment_basepoint=public_key(HOLDER),
        accepter_payment_basepoint=public_key(OTHER),
        other_payment_basepoint=public_key(OTHER),
        to_self_delay=144,
        dust_limit_sat=dust_limit_sat,
    )


def payouts(first_sat: int, first: bytes = P2WPKH, second: bytes = P2WSH) -> tuple[Payout, Payout]:
    return Payout(first, first_sat * 1000 + 1), Payout(second, (FUNDING_SAT - first_sat) * 1000 - 1)


def outputs(closing: ClosingTransaction) -> tuple[Output, ...]:
    """The outputs, once the engine has accepted the signed transaction."""
    of = side()
    tx = signed_closing(closing, of, sign(HOLDER, closing.sighash), sign(OTHER, closing.sighash))
    script = p2wsh(funding_script(of.holder_funding_point, of.other_funding_point))
    flags = pbk.ScriptVerificationFlags.ALL & ~pbk.ScriptVerificationFlags.TAPROOT
    assert pbk.ScriptPubkey(script).verify(FUNDING_SAT, pbk.Transaction(tx), None, 0, flags)
    parsed = parse(tx)
    assert closing.txid == parse_txid(tx)
    assert weight(tx) <= closing_weight([output.script for output in parsed.outputs])
    return parsed.outputs


def parse_txid(tx: bytes) -> bytes:
    return bytes(reversed(bytes.fromhex(str(pbk.Transaction(tx).txid))))


@pytest.mark.parametrize("holder_is_opener", [False, True])
def test_the_opener_pays_the_older_close(holder_is_opener: bool) -> None:
    holder, other = payouts(400_000)
    closing = closing_transaction(side(holder_is_opener), holder, other, 1000)
    paid = (399_000, 599_999) if holder_is_opener else (400_000, 598_999)
    assert outputs(closing) == (Output(paid[0], P2WPKH), Output(paid[1], P2WSH))
    parsed = parse(closing.tx)
    assert (parsed.version, parsed.locktime, parsed.inputs[0].sequence) == (2, 0, 0xFFFFFFFF)


def test_the_older_close_drops_dust_and_what_the_holder_gives_up() -> None:
    of = side(dust_limit_sat=400)
    holder, other = payouts(1399)
    assert outputs(closing_transaction(of, holder, other, 1000)) == (Output(998_600, P2WSH),)
    holder, other = payouts(1400)
    assert len(outputs(closing_transaction(of, holder, other, 1000))) == 2
    assert outputs(closing_transaction(of, holder, other, 1000, holder_output=False)) == (
        Output(998_599, P2WSH),
    )


def test_a_fee_that_its_payer_does_not_have() -> None:
    holder, other = payouts(999)
    with pytest.raises(PeerFault):
        closing_transaction(side(), holder, other, 1000)
    with pytest.raises(PeerFault):
        simple_closing_transaction(side(), BOTH, holder, other, fee_sat=1000, locktime=0)
    with pytest.raises(PeerFault):  # the one output there was is given up
        closing_transaction(side(), *payouts(FUNDING_SAT - 1), 1000, holder_output=False)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (CLOSER_ONLY, (Output(299_000, P2WPKH),)),
        (CLOSEE_ONLY, (Output(699_999, P2WSH),)),
        (BOTH, (Output(299_000, P2WPKH), Output(699_999, P2WSH))),
    ],
)
def test_the_closer_pays_the_simple_close(variant: ClosingVariant, expected: tuple[Output, ...]) -> None:
    closing = simple_closing_transaction(side(False), variant, *payouts(300_000), fee_sat=1000, locktime=123)
    assert outputs(closing) == expected
    parsed = parse(closing.tx)
    assert (parsed.locktime, parsed.inputs[0].sequence) == (123, 0xFFFFFFFD)


def test_an_op_return_gets_nothing() -> None:
    closer, closee = payouts(2000, first=OP_RETURN)
    closing = simple_closing_transaction(side(), BOTH, closer, closee, fee_sat=2000, locktime=0)
    assert outputs(closing) == (Output(0, OP_RETURN), Output(997_999, P2WSH))
    closing = simple_closing_transaction(side(), BOTH, closee, closer, fee_sat=2000, locktime=0)
    assert outputs(closing) == (Output(0, OP_RETURN), Output(995_999, P2WSH))


def test_equal_amounts_are_ordered_by_script() -> None:
    closer, closee = Payout(P2TR, 500_000_000), Payout(P2WSH, 499_000_000)
    closing = simple_closing_transaction(side(), BOTH, closer, closee, fee_sat=1000, locktime=0)
    assert [output.script for output in outputs(closing)] == [P2WSH, P2TR]


@pytest.mark.parametrize(
    ("closer_sat", "fee_sat", "closer_script", "closee_script", "offered", "accepted"),
    [
        (300_000, 1000, P2WPKH, P2WSH, {BOTH}, BOTH),
        (1293, 1000, P2WPKH, P2WSH, {CLOSEE_ONLY}, CLOSEE_ONLY),
        (1294, 1000, P2WPKH, P2WSH, {BOTH}, BOTH),
        (1000, 1000, OP_RETURN, P2WSH, {BOTH}, BOTH),
        (700_000, 1000, P2WPKH, P2WSH, {CLOSER_ONLY, BOTH}, BOTH),
        (FUNDING_SAT - 330, 1000, P2WPKH, P2WSH, {CLOSER_ONLY}, CLOSER_ONLY),
        (FUNDING_SAT - 331, 1000, P2WPKH, P2WSH, {CLOSER_ONLY, BOTH}, BOTH),
        (FUNDING_SAT - 10, 1000, P2WPKH, OP_RETURN, {CLOSER_ONLY, BOTH}, BOTH),
    ],
)
def test_who_may_leave_out_what(closer_sat, fee_sat, closer_script, closee_script, offered, accepted) -> None:
    closer, closee = payouts(closer_sat, closer_script, closee_script)
    assert set(offered_variants(closer, closee, fee_sat)) == offered
    assert accepted_variant(closee, offered) == accepted


def test_a_signature_that_is_missing() -> None:
    _, rich = payouts(1000)
    with pytest.raises(PeerFault):
        accepted_variant(rich, {CLOSER_ONLY})
    poor, _ = payouts(100)
    with pytest.raises(PeerFault):
        accepted_variant(poor, {BOTH, CLOSEE_ONLY})


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, FUNDING_SAT - 1),
    st.integers(0, 5000),
    st.sampled_from([P2WPKH, P2WSH, P2TR, OP_RETURN]),
    st.sampled_from([P2WPKH, P2WSH, P2TR, OP_RETURN]),
)
def test_whatever_is_offered_can_be_accepted(
    closer_sat: int, fee_sat: int, first: bytes, second: bytes
) -> None:
    closer, closee = payouts(closer_sat, first, second)
    if fee_sat > closer.balance_sat:
        return
    offered = offered_variants(closer, closee, fee_sat)
    variant = accepted_variant(closee, offered)
    paid = outputs(simple_closing_transaction(side(), variant, closer, closee, fee_sat=fee_sat, locktime=0))
    assert sum(output.sat for output in paid) <= FUNDING_SAT - fee_sat
    dust = [output for output in paid if output.sat < script_dust_sat(output.script)]
    # only the side that has more may be left with dust of its own making, by a fee that eats all it has
    assert not dust or closer.balance_msat >= closee.balance_msat
