"""BOLT 3 fees, trimming and dust: what a commitment costs and what is too small to be in it."""

from collections.abc import Iterable

from msgspec import Struct

from node.bitcoin.scripts import OP_0, is_op_return

ANCHOR_SAT = 330

COMMITMENT_WEIGHT = 724
COMMITMENT_WEIGHT_ANCHORS = 1124
HTLC_OUTPUT_WEIGHT = 172
HTLC_TIMEOUT_WEIGHT = 663
HTLC_TIMEOUT_WEIGHT_ANCHORS = 666
HTLC_SUCCESS_WEIGHT = 703
HTLC_SUCCESS_WEIGHT_ANCHORS = 706

# A fee that rises trims more HTLCs of a channel without anchors. Dust is counted as if the feerate had
# already risen by a quarter, and to 10 sat per virtual byte at least, so that no update_fee surprises.
DUST_MARGIN_PERCENT = 25
DUST_MIN_FEERATE_PER_KW = 2530

# BOLT 3, dust limits: what Bitcoin Core relays, by the form of the output's script
DUST_P2PKH_SAT = 546
DUST_P2SH_SAT = 540
DUST_P2WPKH_SAT = 294
DUST_P2WSH_SAT = 330
DUST_WITNESS_SAT = 354


class HtlcOutput(Struct, frozen=True):
    """An HTLC as a commitment transaction sees it; `offered` by the holder of that commitment."""

    offered: bool
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int


def commitment_weight(anchors: bool, untrimmed_count: int) -> int:
    base = COMMITMENT_WEIGHT_ANCHORS if anchors else COMMITMENT_WEIGHT
    return base + HTLC_OUTPUT_WEIGHT * untrimmed_count


def commitment_fee_sat(anchors: bool, feerate_per_kw: int, untrimmed_count: int) -> int:
    """The base fee, which the opener pays; what is trimmed or rounded away comes on top of it."""
    return feerate_per_kw * commitment_weight(anchors, untrimmed_count) // 1000


def opener_cost_sat(anchors: bool, feerate_per_kw: int, untrimmed_count: int) -> int:
    """All that leaves the opener's balance for the commitment's sake: the base fee and both anchors."""
    anchors_sat = 2 * ANCHOR_SAT if anchors else 0
    return commitment_fee_sat(anchors, feerate_per_kw, untrimmed_count) + anchors_sat


def htlc_fee_sat(anchors: bool, feerate_per_kw: int, offered: bool) -> int:
    """The fee of an HTLC transaction; with anchors it is added when it is broadcast, not here."""
    if anchors:
        return 0
    return feerate_per_kw * (HTLC_TIMEOUT_WEIGHT if offered else HTLC_SUCCESS_WEIGHT) // 1000


def trim_threshold_sat(dust_limit_sat: int, anchors: bool, feerate_per_kw: int, offered: bool) -> int:
    """The smallest HTLC that gets an output."""
    return dust_limit_sat + htlc_fee_sat(anchors, feerate_per_kw, offered)


def is_trimmed(
    dust_limit_sat: int, anchors: bool, feerate_per_kw: int, offered: bool, amount_msat: int
) -> bool:
    """Whether the HTLC is too small for an output on the commitment of the side with this dust limit."""
    return amount_msat // 1000 < trim_threshold_sat(dust_limit_sat, anchors, feerate_per_kw, offered)


def untrimmed_count(
    dust_limit_sat: int, anchors: bool, feerate_per_kw: int, htlcs: Iterable[HtlcOutput]
) -> int:
    by_side = {
        offered: trim_threshold_sat(dust_limit_sat, anchors, feerate_per_kw, offered)
        for offered in (True, False)
    }
    return sum(htlc.amount_msat // 1000 >= by_side[htlc.offered] for htlc in htlcs)


def dust_feerate_per_kw(feerate_per_kw: int) -> int:
    """The feerate at which dust exposure is counted."""
    return max(DUST_MIN_FEERATE_PER_KW, feerate_per_kw * (100 + DUST_MARGIN_PERCENT) // 100)


def dust_exposure_msat(
    dust_limit_sat: int, anchors: bool, feerate_per_kw: int, htlcs: Iterable[HtlcOutput]
) -> int:
    """What this commitment would give to miners in trimmed HTLCs, should the feerate rise by the margin."""
    raised = dust_feerate_per_kw(feerate_per_kw)
    return sum(
        htlc.amount_msat
        for htlc in htlcs
        if is_trimmed(dust_limit_sat, anchors, raised, htlc.offered, htlc.amount_msat)
    )


def script_dust_sat(script: bytes) -> int:
    """The least that Bitcoin Core relays to this script."""
    if is_op_return(script):
        return 0
    match len(script), script[:1]:
        case 22, version if version == OP_0:
            return DUST_P2WPKH_SAT
        case 34, version if version == OP_0:
            return DUST_P2WSH_SAT
        case 23, b"\xa9":
            return DUST_P2SH_SAT
        case 25, b"\x76":
            return DUST_P2PKH_SAT
        case _:
            return DUST_WITNESS_SAT
