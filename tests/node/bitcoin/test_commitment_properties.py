"""What must hold for every commitment, whatever is in it; Bitcoin Core's engine has the last word."""

from hashlib import sha256

import pbk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.bitcoin.commitment import (
    Commitment,
    CommitmentPoints,
    HtlcOutput,
    HtlcTransaction,
    Side,
    build_commitment,
    holder_htlc_sighash,
    signed_commitment,
    signed_htlc,
)
from node.bitcoin.fees import ANCHOR_SAT, commitment_fee_sat, is_trimmed, untrimmed_count
from node.bitcoin.scripts import funding_script, p2wsh
from node.bitcoin.transaction import (
    SIGHASH_ALL,
    SIGHASH_SINGLE_ANYONECANPAY,
    Input,
    Output,
    Transaction,
    parse,
    sighash,
    txid,
    weight,
)
from node.crypto.keys import public_key, sign
from node.errors import PeerFault

FLAGS = pbk.ScriptVerificationFlags.ALL & ~pbk.ScriptVerificationFlags.TAPROOT
FUNDING_SAT = 10_000_000
HOLDER, OTHER, HOLDER_HTLC, OTHER_HTLC, DELAYED, REVOCATION, OPENER, ACCEPTER = (
    bytes([n] * 32) for n in range(1, 9)
)
POINTS = CommitmentPoints(
    public_key(HOLDER_HTLC), public_key(OTHER_HTLC), public_key(DELAYED), public_key(REVOCATION)
)
sides = st.builds(
    Side,
    anchors=st.booleans(),
    funding_txid=st.binary(min_size=32, max_size=32),
    funding_output_index=st.integers(0, 300),
    funding_sat=st.just(FUNDING_SAT),
    holder_funding_point=st.just(public_key(HOLDER)),
    other_funding_point=st.just(public_key(OTHER)),
    holder_is_opener=st.booleans(),
    opener_payment_basepoint=st.just(public_key(OPENER)),
    accepter_payment_basepoint=st.just(public_key(ACCEPTER)),
    other_payment_basepoint=st.just(public_key(ACCEPTER)),
    to_self_delay=st.integers(0, 2016),
    dust_limit_sat=st.integers(0, 3000),
)
preimages = st.integers(0, 5).map(lambda n: bytes([n] * 32))
htlcs_ = st.lists(
    st.builds(
        HtlcOutput,
        offered=st.booleans(),
        amount_msat=st.integers(0, 4_000_000) | st.sampled_from([1_000_000, 1_000_001]),
        payment_hash=preimages.map(lambda preimage: sha256(preimage).digest()),
        cltv_expiry=st.integers(1, 499_999_999) | st.sampled_from([100, 101]),
    ),
    max_size=12,
)
numbers = st.integers(0, (1 << 48) - 1)
feerates = st.integers(0, 3000) | st.integers(0, 10_000_000)


@st.composite
def commitments(draw: st.DrawFn) -> tuple[Side, int, list[HtlcOutput], Commitment]:
    side, htlcs, feerate = draw(sides), draw(htlcs_), draw(feerates)
    left_msat = FUNDING_SAT * 1000 - sum(htlc.amount_msat for htlc in htlcs)
    opener_msat = draw(st.integers(2 * ANCHOR_SAT * 1000, left_msat))
    balances = (opener_msat, left_msat - opener_msat)
    holder_msat, other_msat = balances if side.holder_is_opener else reversed(balances)
    built = build_commitment(side, POINTS, draw(numbers), feerate, holder_msat, other_msat, htlcs)
    return side, feerate, htlcs, built


def engine_accepts(output: Output, tx: bytes) -> bool:
    script = pbk.ScriptPubkey(output.script)
    return script.verify(output.sat, pbk.Transaction(tx), None, 0, FLAGS)


@settings(max_examples=100, deadline=None)
@given(commitments())
def test_no_satoshi_is_made_or_lost(built: tuple[Side, int, list[HtlcOutput], Commitment]) -> None:
    side, feerate, htlcs, commitment = built
    outputs = parse(commitment.tx).outputs
    assert sum(output.sat for output in outputs) + commitment.fee_sat == FUNDING_SAT
    assert commitment.fee_sat >= 0
    assert list(outputs) == sorted(outputs, key=lambda output: (output.sat, output.script))
    count = untrimmed_count(side.dust_limit_sat, side.anchors, feerate, htlcs)
    assert len(commitment.htlcs) == count
    kept = {htlc.htlc_index for htlc in commitment.htlcs}
    for index, htlc in enumerate(htlcs):
        trimmed = is_trimmed(side.dust_limit_sat, side.anchors, feerate, htlc.offered, htlc.amount_msat)
        assert trimmed == (index not in kept)
    opener_sat = commitment.holder_sat if side.holder_is_opener else commitment.other_sat
    if opener_sat:
        assert commitment.fee_sat >= commitment_fee_sat(side.anchors, feerate, count)


@settings(max_examples=60, deadline=None)
@given(commitments())
def test_anchors_stand_beside_what_they_protect(
    built: tuple[Side, int, list[HtlcOutput], Commitment],
) -> None:
    side, _, _, commitment = built
    others = len(commitment.htlcs) + bool(commitment.holder_sat) + bool(commitment.other_sat)
    if not side.anchors:
        expected = 0
    elif commitment.htlcs:
        expected = 2
    else:
        expected = bool(commitment.holder_sat) + bool(commitment.other_sat)
    outputs = parse(commitment.tx).outputs
    assert len(outputs) == others + expected
    assert sum(output.sat == ANCHOR_SAT for output in outputs) >= expected


@settings(max_examples=60, deadline=None)
@given(commitments())
def test_every_byte_and_hash_is_libwallys(built: tuple[Side, int, list[HtlcOutput], Commitment]) -> None:
    side, _, htlcs, commitment = built
    parsed = parse(commitment.tx)
    if parsed.outputs:  # libwally refuses to write what nobody could spend
        assert parsed.serialize() == commitment.tx
    script = funding_script(side.holder_funding_point, side.other_funding_point)
    assert commitment.txid == txid(commitment.tx)
    assert commitment.sighash == sighash(commitment.tx, 0, script, FUNDING_SAT)
    kind = SIGHASH_SINGLE_ANYONECANPAY if side.anchors else SIGHASH_ALL
    for htlc in commitment.htlcs:
        amount_sat = parsed.outputs[htlc.output_index].sat
        given_ = htlcs[htlc.htlc_index]
        assert amount_sat == given_.amount_msat // 1000
        assert parsed.outputs[htlc.output_index].script == p2wsh(htlc.script)
        (paid,) = parse(htlc.tx).outputs
        assert paid.sat <= amount_sat
        spent = Input(commitment.txid, htlc.output_index, sequence=int(side.anchors))
        locktime = given_.cltv_expiry if given_.offered else 0
        assert htlc.tx == Transaction(2, (spent,), (paid,), locktime).serialize()
        assert htlc.sighash == sighash(htlc.tx, 0, htlc.script, amount_sat, kind)


@settings(max_examples=30, deadline=None)
@given(commitments())
def test_bitcoin_core_accepts_what_is_signed(built: tuple[Side, int, list[HtlcOutput], Commitment]) -> None:
    side, _, htlcs, commitment = built
    outputs = parse(commitment.tx).outputs
    if not outputs:
        return
    local, remote = sign(HOLDER, commitment.sighash), sign(OTHER, commitment.sighash)
    script = p2wsh(funding_script(side.holder_funding_point, side.other_funding_point))
    assert engine_accepts(Output(FUNDING_SAT, script), signed_commitment(commitment, side, local, remote))
    for htlc in commitment.htlcs:
        given_, spent = htlcs[htlc.htlc_index], outputs[htlc.output_index]
        preimage = b"" if given_.offered else preimage_of(given_)
        assert engine_accepts(spent, signed_by_both(htlc, side, spent.sat, preimage))
        if given_.offered:  # the holder cannot pretend to know a preimage, nor take a received one without it
            assert not engine_accepts(spent, signed_by_both(htlc, side, spent.sat, preimage_of(given_)))
        else:
            assert not engine_accepts(spent, signed_by_both(htlc, side, spent.sat, bytes([99] * 32)))


def preimage_of(htlc: HtlcOutput) -> bytes:
    return next(bytes([n] * 32) for n in range(6) if sha256(bytes([n] * 32)).digest() == htlc.payment_hash)


def signed_by_both(htlc: HtlcTransaction, side: Side, amount_sat: int, preimage: bytes) -> bytes:
    local = sign(HOLDER_HTLC, holder_htlc_sighash(htlc, side, amount_sat))
    return signed_htlc(htlc, side, local, sign(OTHER_HTLC, htlc.sighash), preimage)


@pytest.mark.parametrize("anchors", [False, True])
def test_a_full_commitment(anchors: bool) -> None:
    """966 HTLCs, all there may be: more outputs than one byte counts, and still a standard transaction."""
    side = full_side(anchors)
    htlcs = [
        HtlcOutput(n % 2 == 0, 5_000_000 + n, sha256(bytes([n % 6] * 32)).digest(), 500 + n)
        for n in range(966)
    ]
    left_msat = FUNDING_SAT * 1000 - sum(htlc.amount_msat for htlc in htlcs)
    commitment = build_commitment(side, POINTS, 1, 253, left_msat - 1_000_000_000, 1_000_000_000, htlcs)
    assert len(commitment.htlcs) == 966
    local, remote = sign(HOLDER, commitment.sighash), sign(OTHER, commitment.sighash)
    signed = signed_commitment(commitment, side, local, remote)
    assert weight(signed) <= 400_000
    script = p2wsh(funding_script(side.holder_funding_point, side.other_funding_point))
    assert engine_accepts(Output(FUNDING_SAT, script), signed)
    assert [htlc.output_index for htlc in commitment.htlcs] == sorted(
        h.output_index for h in commitment.htlcs
    )


def test_more_than_the_channel_holds_is_our_bug() -> None:
    with pytest.raises(AssertionError):
        build_commitment(full_side(anchors=True), POINTS, 1, 253, FUNDING_SAT * 1000, 1, [])


def test_an_opener_that_cannot_pay_the_anchors_is_at_fault() -> None:
    build_commitment(full_side(anchors=True), POINTS, 1, 0, 660_000, FUNDING_SAT * 1000 - 660_000, [])
    with pytest.raises(PeerFault):
        build_commitment(full_side(anchors=True), POINTS, 1, 0, 0, FUNDING_SAT * 1000, [])


def full_side(anchors: bool) -> Side:
    return Side(
        anchors=anchors,
        funding_txid=bytes(32),
        funding_output_index=0,
        funding_sat=FUNDING_SAT,
        holder_funding_point=public_key(HOLDER),
        other_funding_point=public_key(OTHER),
        holder_is_opener=True,
        opener_payment_basepoint=public_key(OPENER),
        accepter_payment_basepoint=public_key(ACCEPTER),
        other_payment_basepoint=public_key(ACCEPTER),
        to_self_delay=144,
        dust_limit_sat=354,
    )
