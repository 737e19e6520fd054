"""Commitment transactions (BOLT 3), built for either side: `holder` is the one who may broadcast it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct as Layout

from msgspec import Struct

from node.bitcoin.fees import (
    ANCHOR_SAT,
    HtlcOutput,
    commitment_fee_sat,
    is_trimmed,
    opener_cost_sat,
    trim_threshold_sat,
)
from node.bitcoin.htlcs import NO_HTLC, CommitmentOutput, HtlcTransaction, htlc_transactions
from node.bitcoin.scripts import (
    anchor,
    funding_script,
    htlc_scripts,
    p2wpkh,
    p2wsh,
    to_local,
    to_remote_anchors,
)
from node.bitcoin.transaction import (
    SIGHASH_ALL,
    SIGHASH_SINGLE_ANYONECANPAY,
    multisig_witness,
    script_signature,
    sighash,
    with_witness,
)
from node.crypto.derivation import derive_public_key, derive_revocation_public_key
from node.crypto.hashes import hash256, sha256
from node.errors import PeerFault

__all__ = [
    "Commitment",
    "CommitmentPoints",
    "HtlcOutput",
    "HtlcTransaction",
    "Side",
    "build_commitment",
    "commitment_fee_sat",
    "commitment_points",
    "holder_htlc_sighash",
    "is_trimmed",
    "signed_commitment",
    "signed_funding_spend",
    "signed_htlc",
]

# Both sides of every channel that one backend keeps busy; about 600 bytes each.
MAX_KNOWN_SIDES = 16_384

_VERSION = b"\x02\0\0\0"
_HIGH_LOCKTIME, _HIGH_SEQUENCE = 0x20 << 24, 0x80 << 24
_LOW_24_BITS = (1 << 24) - 1
_LOW_48_BITS = (1 << 48) - 1

_pack_u32 = Layout("<I").pack
_pack_output = Layout("<QB").pack
# BIP 143 after the spent script: amount, sequence, hash of the outputs, locktime, kind
_pack_sighash_end = Layout("<QI32sII").pack


class Side(Struct, frozen=True):
    """What never changes about one side's commitments."""

    anchors: bool
    funding_txid: bytes
    funding_output_index: int
    funding_sat: int
    holder_funding_point: bytes
    other_funding_point: bytes
    holder_is_opener: bool
    opener_payment_basepoint: bytes
    accepter_payment_basepoint: bytes
    other_payment_basepoint: bytes
    to_self_delay: int
    dust_limit_sat: int


class CommitmentPoints(Struct, frozen=True):
    """The points of one commitment, derived from its per-commitment point."""

    holder_htlc: bytes
    other_htlc: bytes
    holder_delayed: bytes
    revocation: bytes


class Commitment(Struct, frozen=True):
    """An unsigned commitment transaction; what the outputs do not carry is the fee."""

    tx: bytes
    txid: bytes
    sighash: bytes
    htlcs: tuple[HtlcTransaction, ...]  # of the untrimmed ones, in output order
    holder_sat: int
    other_sat: int
    fee_sat: int


class _Fixed(Struct, frozen=True):
    """What a side's commitments have in common, computed once."""

    obscuring_factor: int
    outpoint: bytes
    funding_script: bytes
    to_remote_script: bytes
    holder_anchor_script: bytes
    other_anchor_script: bytes


def build_commitment(
    side: Side,
    points: CommitmentPoints,
    number: int,
    feerate_per_kw: int,
    holder_msat: int,
    other_msat: int,
    htlcs: Sequence[HtlcOutput],
) -> Commitment:
    """The holder's commitment `number` (counted up from 0) and its HTLC transactions.

    The balances are those before fee and anchors, which the opener pays as far as its balance goes;
    PeerFault when not even the anchors are covered, as no such transaction could be mined.
    """
    total_msat = holder_msat + other_msat + sum(htlc.amount_msat for htlc in htlcs)
    assert total_msat == side.funding_sat * 1000, (
        "a commitment hands out what the channel holds, no more, no less"
    )
    fixed = _fixed(side)
    outputs = _htlc_outputs(side, points, feerate_per_kw, htlcs)
    holder_sat, other_sat = _payable_sat(side, feerate_per_kw, holder_msat, other_msat, len(outputs))
    delayed_script = p2wsh(to_local(points.revocation, side.to_self_delay, points.holder_delayed))
    if side.anchors:
        outputs += _anchor_outputs(fixed, holder_sat, other_sat, has_htlcs=bool(outputs))
    outputs += _balance_outputs(fixed, delayed_script, holder_sat, other_sat)
    outputs.sort()
    fee_sat = side.funding_sat - sum(output[0] for output in outputs)
    if fee_sat < 0:
        raise PeerFault("the opener cannot pay for the anchors of its commitment")
    tx, digest = _transaction(side, fixed, number, outputs)
    txid = hash256(tx)
    return Commitment(
        tx=tx,
        txid=txid,
        sighash=digest,
        htlcs=htlc_transactions(
            txid, delayed_script, outputs, htlcs, anchors=side.anchors, feerate_per_kw=feerate_per_kw
        ),
        holder_sat=holder_sat,
        other_sat=other_sat,
        fee_sat=fee_sat,
    )


def commitment_points(
    per_commitment_point: bytes,
    holder_htlc_basepoint: bytes,
    other_htlc_basepoint: bytes,
    holder_delayed_basepoint: bytes,
    other_revocation_basepoint: bytes,
) -> CommitmentPoints:
    """The points of the holder's commitment that has this per-commitment point (the holder's own)."""
    return CommitmentPoints(
        holder_htlc=derive_public_key(holder_htlc_basepoint, per_commitment_point),
        other_htlc=derive_public_key(other_htlc_basepoint, per_commitment_point),
        holder_delayed=derive_public_key(holder_delayed_basepoint, per_commitment_point),
        revocation=derive_revocation_public_key(other_revocation_basepoint, per_commitment_point),
    )


def signed_commitment(
    commitment: Commitment, side: Side, holder_signature: bytes, other_signature: bytes
) -> bytes:
    return signed_funding_spend(commitment.tx, side, holder_signature, other_signature)


def signed_funding_spend(tx: bytes, side: Side, holder_signature: bytes, other_signature: bytes) -> bytes:
    """A transaction whose one input is the funding output, with both signatures put in."""
    signatures = {side.holder_funding_point: holder_signature, side.other_funding_point: other_signature}
    return with_witness(tx, 0, multisig_witness(_fixed(side).funding_script, signatures))


def signed_htlc(
    htlc: HtlcTransaction, side: Side, holder_signature: bytes, other_signature: bytes, preimage: bytes = b""
) -> bytes:
    """The HTLC transaction ready to publish; without a preimage it is the timeout of an offered one."""
    other_kind = SIGHASH_SINGLE_ANYONECANPAY if side.anchors else SIGHASH_ALL
    witness = (
        b"",
        script_signature(other_signature, other_kind),
        script_signature(holder_signature),
        preimage,
        htlc.script,
    )
    return with_witness(htlc.tx, 0, witness)


def holder_htlc_sighash(htlc: HtlcTransaction, side: Side, amount_sat: int) -> bytes:
    """What the holder signs itself (all of it, with anchors too); the amount is that of the spent output."""
    return sighash(htlc.tx, 0, htlc.script, amount_sat) if side.anchors else htlc.sighash


@lru_cache(maxsize=MAX_KNOWN_SIDES)
def _fixed(side: Side) -> _Fixed:
    remote = side.other_payment_basepoint
    return _Fixed(
        obscuring_factor=int.from_bytes(
            sha256(side.opener_payment_basepoint + side.accepter_payment_basepoint)[-6:], "big"
        ),
        outpoint=side.funding_txid + _pack_u32(side.funding_output_index),
        funding_script=funding_script(side.holder_funding_point, side.other_funding_point),
        to_remote_script=p2wsh(to_remote_anchors(remote)) if side.anchors else p2wpkh(remote),
        holder_anchor_script=p2wsh(anchor(side.holder_funding_point)),
        other_anchor_script=p2wsh(anchor(side.other_funding_point)),
    )


def _htlc_outputs(
    side: Side, points: CommitmentPoints, feerate_per_kw: int, htlcs: Sequence[HtlcOutput]
) -> list[CommitmentOutput]:
    """The outputs of the HTLCs that are not trimmed, in the order given."""
    offered_min_sat = trim_threshold_sat(side.dust_limit_sat, side.anchors, feerate_per_kw, offered=True)
    received_min_sat = trim_threshold_sat(side.dust_limit_sat, side.anchors, feerate_per_kw, offered=False)
    scripts = htlc_scripts(points.revocation, points.holder_htlc, points.other_htlc, side.anchors)
    outputs = []
    for index, htlc in enumerate(htlcs):
        amount_sat = htlc.amount_msat // 1000
        if amount_sat < (offered_min_sat if htlc.offered else received_min_sat):
            continue
        if htlc.offered:
            script = scripts.offered(htlc.payment_hash)
        else:
            script = scripts.received(htlc.payment_hash, htlc.cltv_expiry)
        outputs.append((amount_sat, p2wsh(script), htlc.cltv_expiry, index, script))
    return outputs


def _payable_sat(
    side: Side, feerate_per_kw: int, holder_msat: int, other_msat: int, untrimmed_count: int
) -> tuple[int, int]:
    """What is left of both balances after the opener's costs; nothing where it would be dust."""
    cost_sat = opener_cost_sat(side.anchors, feerate_per_kw, untrimmed_count)
    holder_sat = holder_msat // 1000 - (cost_sat if side.holder_is_opener else 0)
    other_sat = other_msat // 1000 - (0 if side.holder_is_opener else cost_sat)
    dust_sat = max(side.dust_limit_sat, 1)
    return holder_sat if holder_sat >= dust_sat else 0, other_sat if other_sat >= dust_sat else 0


def _balance_outputs(
    fixed: _Fixed, delayed_script: bytes, holder_sat: int, other_sat: int
) -> list[CommitmentOutput]:
    paid = ((holder_sat, delayed_script), (other_sat, fixed.to_remote_script))
    return [(sat, script, 0, NO_HTLC, b"") for sat, script in paid if sat]


def _anchor_outputs(
    fixed: _Fixed, holder_sat: int, other_sat: int, has_htlcs: bool
) -> list[CommitmentOutput]:
    """An anchor for each side that has something to hurry for: a balance, or HTLCs."""
    anchors = ((holder_sat, fixed.holder_anchor_script), (other_sat, fixed.other_anchor_script))
    return [(ANCHOR_SAT, script, 0, NO_HTLC, b"") for sat, script in anchors if sat or has_htlcs]


def _transaction(
    side: Side, fixed: _Fixed, number: int, outputs: Sequence[CommitmentOutput]
) -> tuple[bytes, bytes]:
    """The unsigned transaction and what both sides sign of it (BIP 143)."""
    obscured = (number ^ fixed.obscuring_factor) & _LOW_48_BITS
    sequence = _HIGH_SEQUENCE | obscured >> 24
    locktime = _HIGH_LOCKTIME | obscured & _LOW_24_BITS
    paid = _serialized_outputs(outputs)
    tx = b"".join(
        (
            *(_VERSION, b"\x01", fixed.outpoint, b"\0", _pack_u32(sequence)),
            *(_compact_size(len(outputs)), paid, _pack_u32(locktime)),
        )
    )
    signed = b"".join(
        (
            *(_VERSION, hash256(fixed.outpoint), hash256(_pack_u32(sequence)), fixed.outpoint),
            *(bytes((len(fixed.funding_script),)), fixed.funding_script),
            _pack_sighash_end(side.funding_sat, sequence, hash256(paid), locktime, SIGHASH_ALL),
        )
    )
    return tx, hash256(signed)


def _serialized_outputs(outputs: Iterable[CommitmentOutput]) -> bytes:
    parts = []
    for sat, script, *_ in outputs:
        parts.append(_pack_output(sat, len(script)))
        parts.append(script)
    return b"".join(parts)


def _compact_size(count: int) -> bytes:
    """Counts up to 65,535; a commitment has at most 970 outputs."""
    return bytes((count,)) if count < 0xFD else b"\xfd" + count.to_bytes(2, "little")
