"""BOLT 2, closing_signed: the opener pays, and both have to agree on what."""

from msgspec import Struct
from msgspec.structs import replace

from node.bitcoin import transaction
from node.bitcoin.closing import (
    ClosingTransaction,
    Payout,
    closing_transaction,
    closing_weight,
    signed_closing,
)
from node.bitcoin.fees import script_dust_sat
from node.channel import commitments
from node.channel.closing_model import Closing
from node.channel.effects import Effects, Publish, Send, Store
from node.channel.model import SAT, Channel, Phase
from node.crypto import keys as secp
from node.crypto.derivation import ChannelKeys
from node.errors import PeerFault
from node.wire import bolt1, bolt2


class Range(Struct, frozen=True):
    """The closing fees that one side accepts."""

    low_sat: int
    high_sat: int

    def __contains__(self, fee_sat: int) -> bool:
        return self.low_sat <= fee_sat <= self.high_sat

    def clamp(self, fee_sat: int) -> int:
        return min(max(fee_sat, self.low_sat), self.high_sat)

    def overlap(self, other: "Range") -> "Range | None":
        low_sat, high_sat = max(self.low_sat, other.low_sat), min(self.high_sat, other.high_sat)
        return Range(low_sat, high_sat) if low_sat <= high_sat else None


def begin_legacy(ch: Channel, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """The opener makes the first offer."""
    if not ch.is_opener:
        return ch, (Store(),)
    limits = _own_range(ch)
    return _offer(ch, keys, limits.clamp(_preferred_sat(ch)), limits)


def receive_closing_signed(
    ch: Channel, message: bolt2.ClosingSigned, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    closing = ch.closing
    if closing is None or not closing.started or ch.features.simple_close:
        raise PeerFault("closing_signed before its time")
    close = _their_close(ch, message)
    fee_sat = message.fee_satoshis
    if fee_sat == closing.sent_fee_sat:
        return _finish(ch, keys, close, message.signature)
    wanted = _answer_sat(ch, closing, message)
    if wanted is None:
        return ch, (Send(bolt1.Warning(ch.channel_id, b"our ranges of closing fees do not overlap")),)
    ch = replace(ch, closing=replace(closing, received_fee_sat=fee_sat))
    after, effects = _offer(ch, keys, wanted, _answer_range(ch, message))
    if wanted != fee_sat:
        return after, effects
    done, more = _finish(after, keys, close, message.signature)
    return done, (*effects, *more[1:])  # stored once


def _answer_sat(ch: Channel, closing: Closing, message: bolt2.ClosingSigned) -> int | None:
    """The fee that we answer with; None where the ranges leave none. PeerFault where theirs may not be."""
    fee_sat, ours = message.fee_satoshis, _answer_range(ch, message)
    if closing.sent_range_sat is not None and fee_sat in Range(*closing.sent_range_sat):
        return fee_sat
    if message.fee_range is not None:
        theirs = Range(message.fee_range.min_fee_satoshis, message.fee_range.max_fee_satoshis)
        overlap = ours.overlap(theirs)
        if overlap is None:
            return None
        if ch.is_opener and fee_sat not in overlap:
            raise PeerFault("the closing fee is outside of both ranges")
        if ch.is_opener:
            return fee_sat
        if closing.sent_fee_sat is not None:
            raise PeerFault("the opener has to take our closing fee within its range")
        return overlap.clamp(_preferred_sat(ch))
    return _haggle_sat(ch, closing, fee_sat, ours)


def _haggle_sat(ch: Channel, closing: Closing, fee_sat: int, ours: Range) -> int:
    """Without ranges: each offer is strictly between the two before it."""
    sent_sat, received_sat = closing.sent_fee_sat, closing.received_fee_sat
    if sent_sat is not None and received_sat is not None:
        low_sat, high_sat = sorted((sent_sat, received_sat))
        if not low_sat < fee_sat < high_sat:
            raise PeerFault("the closing fee is not between the last two")
    if fee_sat in ours:
        return fee_sat
    if sent_sat is None:
        return ours.clamp(fee_sat)
    if abs(fee_sat - sent_sat) <= 1:
        return fee_sat  # nothing is strictly between
    return (fee_sat + sent_sat) // 2


def _answer_range(ch: Channel, message: bolt2.ClosingSigned) -> Range:
    ours = _own_range(ch)
    if ch.is_opener or message.fee_range is None:
        return ours
    # BOLT 2: who does not pay does not set the maximum
    return replace(ours, high_sat=max(ours.high_sat, message.fee_range.max_fee_satoshis))


def _own_range(ch: Channel) -> Range:
    assert ch.closing is not None, "there is a close to negotiate"
    weight = _weight(ch)
    opener_msat = ch.local_view.local_msat if ch.is_opener else ch.local_view.remote_msat
    high_sat = min(ch.closing.feerates.max_per_kw * weight // 1000, opener_msat // SAT)
    return Range(min(ch.closing.feerates.min_per_kw * weight // 1000, high_sat), high_sat)


def _preferred_sat(ch: Channel) -> int:
    assert ch.closing is not None, "there is a close to negotiate"
    return ch.closing.feerates.preferred_per_kw * _weight(ch) // 1000


def _weight(ch: Channel) -> int:
    assert ch.closing is not None, "there is a close to negotiate"
    return closing_weight((ch.closing.local_script, ch.closing.remote_script))


def payouts(ch: Channel) -> tuple[Payout, Payout]:
    """Ours and the peer's."""
    assert ch.closing is not None, "there is a close to negotiate"
    view = ch.local_view
    return (
        Payout(ch.closing.local_script, view.local_msat),
        Payout(ch.closing.remote_script, view.remote_msat),
    )


def _offer(ch: Channel, keys: ChannelKeys, fee_sat: int, limits: Range) -> tuple[Channel, Effects]:
    assert ch.closing is not None, "there is a close to negotiate"
    close = closing_transaction(commitments.side(ch, local=True), *payouts(ch), fee_sat)
    message = bolt2.ClosingSigned(
        ch.channel_id,
        fee_sat,
        secp.sign(keys.funding_secret, close.sighash),
        fee_range=bolt2.FeeRange(limits.low_sat, limits.high_sat),
    )
    closing = replace(ch.closing, sent_fee_sat=fee_sat, sent_range_sat=(limits.low_sat, limits.high_sat))
    return replace(ch, closing=closing), (Store(), Send(message))


def _their_close(ch: Channel, message: bolt2.ClosingSigned) -> ClosingTransaction:
    """The close that the peer signed. Raises PeerFault where it signed none that could be."""
    ours, theirs = payouts(ch)
    side = commitments.side(ch, local=False)
    for holder_output in (True, False):
        # BOLT 3: a side may leave out its own output
        close = closing_transaction(side, theirs, ours, message.fee_satoshis, holder_output=holder_output)
        if secp.verify(ch.remote.funding_pubkey, close.sighash, message.signature):
            outputs = transaction.parse(close.tx).outputs
            if any(output.sat < script_dust_sat(output.script) for output in outputs):
                raise PeerFault("an output of the closing transaction is dust")
            return close
    raise PeerFault("invalid signature of the closing transaction")


def _finish(
    ch: Channel, keys: ChannelKeys, close: ClosingTransaction, signature: bytes
) -> tuple[Channel, Effects]:
    side = commitments.side(ch, local=True)
    tx = signed_closing(close, side, secp.sign(keys.funding_secret, close.sighash), signature)
    return agreed(ch, tx), (Store(), Publish(tx, "mutual close"))


def agreed(ch: Channel, tx: bytes) -> Channel:
    """The channel once both have signed a close."""
    assert ch.closing is not None, "there is a close to agree on"
    others = tuple(other for other in ch.closing.txs if other != tx)
    return replace(ch, phase=Phase.CLOSING, closing=replace(ch.closing, txs=(*others, tx)))
