"""BOLT 4, accepting and forwarding: what to do with a received HTLC.

In two halves, because the first is nothing but arithmetic on curves and may run elsewhere: `peel` opens the onion,
`decide` compares what it says with the HTLC and our channels.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

from msgspec import Struct

from node.crypto import sphinx
from node.crypto.failures import build_failure
from node.crypto.hashes import sha256
from node.errors import MalformedMessage
from node.payment.htlc import HtlcKey
from node.wire.bolt4 import (
    BADONION,
    PERM,
    AmountBelowMinimum,
    ChannelDisabled,
    ExpiryTooFar,
    ExpiryTooSoon,
    Failure,
    FeeInsufficient,
    FinalIncorrectCltvExpiry,
    FinalIncorrectHtlcAmount,
    HopPayload,
    IncorrectCltvExpiry,
    InvalidOnionBlinding,
    InvalidOnionPayload,
    TemporaryChannelFailure,
    TemporaryNodeFailure,
    UnknownNextPeer,
    encode_failure,
)
from node.wire.codec import decode_tlvs

# BOLT 4, max_htlc_cltv: two weeks. Held against the received HTLC too, whose slot can be jammed for as long.
MAX_EXPIRY_BLOCKS = 2016
# BOLT 2 gives an expired HTLC two blocks of grace before its channel is closed: never offer one that close.
MIN_OUTGOING_EXPIRY_BLOCKS = 3
INVALID_ONION_BLINDING = BADONION | PERM | 24
AMOUNT, EXPIRY, NEXT_CHANNEL = 2, 4, 6  # records of a payload
SCID_OFFSET = 2 + 64 + 32  # in a channel_update, after its type, signature and chain hash


class IncomingHtlc(Struct, frozen=True, kw_only=True):
    key: HtlcKey
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int
    onion: bytes
    path_key: bytes | None = None


class OutgoingChannel(Struct, frozen=True, kw_only=True):
    """One of our channels, as something to forward over."""

    channel_id: bytes
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int
    htlc_minimum_msat: int
    htlc_maximum_msat: int
    enabled: bool  # by our policy
    usable: bool  # connected, and not closing
    spendable_msat: int
    channel_update: bytes = b""  # our latest, with its type

    def fee_msat(self, amount_msat: int) -> int:
        """BOLT 7, HTLC fees: for forwarding this amount."""
        return self.fee_base_msat + amount_msat * self.fee_proportional_millionths // 1_000_000


class Opened(Struct, frozen=True):
    """What an onion said to us."""

    payload: HopPayload
    next_onion: bytes | None  # None: we are the payee
    shared_secret: bytes


class Forward(Struct, frozen=True, kw_only=True):
    channel_id: bytes
    amount_msat: int
    cltv_expiry: int
    next_onion: bytes
    shared_secret: bytes
    fee_msat: int


class Final(Struct, frozen=True):
    """For ourselves: see `node.payment.receive`."""

    payload: HopPayload
    shared_secret: bytes


class Fail(Struct, frozen=True):
    """Answer with update_fail_htlc; `failure` is what the packet says, for our own records."""

    reason: bytes
    failure: Failure


class FailMalformed(Struct, frozen=True):
    """Answer with update_fail_malformed_htlc."""

    sha256_of_onion: bytes
    failure_code: int


# By the short_channel_id (real or alias) that an onion names: our channels with that peer, the named one first.
Lookup = Callable[[int], Sequence[OutgoingChannel]]
Decision = Forward | Final | Fail


def peel(htlc: IncomingHtlc, node_secret: bytes) -> Opened | Fail | FailMalformed:
    """Open the onion of `htlc`: about 0.1 ms of arithmetic, needs nothing else of ours."""
    if htlc.path_key is not None:
        # BOLT 4, returning errors: whatever is wrong inside a blinded path looks the same; we are on none
        return FailMalformed(sha256(htlc.onion), INVALID_ONION_BLINDING)
    try:
        peeled = sphinx.peel(node_secret, htlc.onion, htlc.payment_hash)
    except sphinx.BadOnion as bad:
        if bad.shared_secret is None:
            return FailMalformed(sha256(htlc.onion), bad.failure_code)
        return _fail(bad.shared_secret, InvalidOnionPayload(0, 0))
    try:
        payload = decode_tlvs(HopPayload, peeled.payload)
    except MalformedMessage:
        return _fail(peeled.shared_secret, InvalidOnionPayload(0, 0))
    return Opened(payload, peeled.next_onion, peeled.shared_secret)


def decide(htlc: IncomingHtlc, opened: Opened, height: int, lookup: Lookup) -> Decision:
    """What BOLT 4 wants done with an HTLC whose onion is open."""
    payload = opened.payload
    if payload.current_path_key is not None or payload.encrypted_recipient_data is not None:
        return _fail(opened.shared_secret, InvalidOnionBlinding(sha256(htlc.onion)))
    amount_msat, cltv_expiry = payload.amt_to_forward, payload.outgoing_cltv_value
    if amount_msat is None or cltv_expiry is None:
        missing = AMOUNT if amount_msat is None else EXPIRY
        return _fail(opened.shared_secret, InvalidOnionPayload(missing, 0))
    if opened.next_onion is None:
        return _decide_final(htlc, opened, amount_msat, cltv_expiry)
    if payload.short_channel_id is None:
        return _fail(opened.shared_secret, InvalidOnionPayload(NEXT_CHANNEL, 0))
    offer = _Offer(htlc, payload.short_channel_id, amount_msat, cltv_expiry, height)
    match _choose(offer, lookup(payload.short_channel_id)):
        case OutgoingChannel(channel_id=channel_id):
            return Forward(
                channel_id=channel_id,
                amount_msat=amount_msat,
                cltv_expiry=cltv_expiry,
                next_onion=opened.next_onion,
                shared_secret=opened.shared_secret,
                fee_msat=htlc.amount_msat - amount_msat,
            )
        case Failure() as failure:
            return _fail(opened.shared_secret, failure)
        case _ as never:
            assert_never(never)


def refuse(opened: Opened) -> Fail:
    """For an HTLC that the channel itself does not let us keep, forward or final alike."""
    return _fail(opened.shared_secret, TemporaryNodeFailure())


def _decide_final(htlc: IncomingHtlc, opened: Opened, amount_msat: int, cltv_expiry: int) -> Final | Fail:
    # BOLT 4, payload, final node: the hop before us took neither blocks nor money for itself
    if htlc.cltv_expiry < cltv_expiry:
        return _fail(opened.shared_secret, FinalIncorrectCltvExpiry(htlc.cltv_expiry))
    if htlc.amount_msat < amount_msat:
        return _fail(opened.shared_secret, FinalIncorrectHtlcAmount(htlc.amount_msat))
    return Final(opened.payload, opened.shared_secret)


class _Offer(Struct, frozen=True):
    """What the origin asks for, next to what it brought."""

    htlc: IncomingHtlc
    short_channel_id: int
    amount_msat: int
    cltv_expiry: int
    height: int


def _choose(offer: _Offer, channels: Sequence[OutgoingChannel]) -> OutgoingChannel | Failure:
    """The named channel, or another with the same peer that can (BOLT 4, non-strict forwarding)."""
    if not channels:
        return UnknownNextPeer()
    refusal = _refusal(offer, channels[0])
    if refusal is None:
        return channels[0]
    able = [channel for channel in channels[1:] if _refusal(offer, channel) is None]
    # the fullest stay free for larger ones
    return min(able, key=lambda channel: channel.spendable_msat, default=refusal)


def _refusal(offer: _Offer, channel: OutgoingChannel) -> Failure | None:
    """The first reason, in the BOLT's order, against forwarding `offer` over `channel`; what passes comes last."""
    htlc, update = offer.htlc, _update(channel, offer.short_channel_id)
    if offer.amount_msat < channel.htlc_minimum_msat:
        return AmountBelowMinimum(offer.amount_msat, update)
    if htlc.amount_msat - offer.amount_msat < channel.fee_msat(offer.amount_msat):
        return FeeInsufficient(htlc.amount_msat, update)
    if htlc.cltv_expiry - channel.cltv_expiry_delta < offer.cltv_expiry:
        return IncorrectCltvExpiry(offer.cltv_expiry, update)
    if offer.cltv_expiry < offer.height + MIN_OUTGOING_EXPIRY_BLOCKS:
        return ExpiryTooSoon(update)
    if not channel.enabled:
        return ChannelDisabled(0, update)
    if htlc.cltv_expiry > offer.height + MAX_EXPIRY_BLOCKS:
        return ExpiryTooFar()
    if not channel.usable or offer.amount_msat > min(channel.spendable_msat, channel.htlc_maximum_msat):
        return TemporaryChannelFailure(update)
    return None


def _update(channel: OutgoingChannel, short_channel_id: int) -> bytes:
    """Our channel_update, unless it speaks of the channel by another id than the origin did (BOLT 4: it must not)."""
    named = channel.channel_update[SCID_OFFSET : SCID_OFFSET + 8]
    return channel.channel_update if named == short_channel_id.to_bytes(8, "big") else b""


def _fail(shared_secret: bytes, failure: Failure) -> Fail:
    return Fail(build_failure(shared_secret, encode_failure(failure)), failure)
