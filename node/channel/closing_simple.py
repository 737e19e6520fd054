"""BOLT 2, closing_complete and closing_sig: each side pays for a close of its own, as often as it wants to."""

from msgspec.structs import replace

from node.bitcoin.closing import (
    ClosingTransaction,
    ClosingVariant,
    accepted_variant,
    closing_weight,
    offered_variants,
    signed_closing,
    simple_closing_transaction,
)
from node.bitcoin.scripts import is_standard_shutdown_script
from node.channel import commitments
from node.channel.closing_legacy import agreed, payouts
from node.channel.effects import Effects, Publish, Send, Store
from node.channel.failing import warn
from node.channel.model import Channel
from node.crypto import keys as secp
from node.crypto.derivation import ChannelKeys
from node.errors import PeerFault
from node.wire.bolt2 import ClosingComplete, ClosingSig

MAX_CLOSES = 64  # how many versions of the close we remember; the newest replace the oldest


def begin_simple(ch: Channel, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """Offer a close that we pay for, where we have anything to pay with."""
    assert ch.closing is not None, "there is a close to offer"
    closer, closee = payouts(ch)
    weight = closing_weight((closer.script, closee.script))
    fee_sat = min(ch.closing.feerates.preferred_per_kw * weight // 1000, closer.balance_sat)
    if fee_sat < ch.closing.feerates.min_per_kw * weight // 1000:
        return ch, (Store(),)  # it would not be relayed; the peer's close pays for both
    signatures = {
        variant.value: secp.sign(
            keys.funding_secret, _close(ch, variant, fee_sat, ch.height, ours=True).sighash
        )
        for variant in offered_variants(closer, closee, fee_sat)
    }
    offer = ClosingComplete(ch.channel_id, closer.script, closee.script, fee_sat, ch.height, **signatures)
    return replace(ch, closing=replace(ch.closing, offer=offer)), (Store(), Send(offer))


def _close(
    ch: Channel, variant: ClosingVariant, fee_sat: int, locktime: int, *, ours: bool
) -> ClosingTransaction:
    """A close that we or the peer pay for."""
    local, remote = payouts(ch)
    closer, closee = (local, remote) if ours else (remote, local)
    side = commitments.side(ch, local=True)
    return simple_closing_transaction(side, variant, closer, closee, fee_sat=fee_sat, locktime=locktime)


def _signatures(message: ClosingComplete | ClosingSig) -> dict[ClosingVariant, bytes]:
    found = {
        ClosingVariant.CLOSER_OUTPUT_ONLY: message.closer_output_only,
        ClosingVariant.CLOSEE_OUTPUT_ONLY: message.closee_output_only,
        ClosingVariant.CLOSER_AND_CLOSEE_OUTPUTS: message.closer_and_closee_outputs,
    }
    return {variant: signature for variant, signature in found.items() if signature is not None}


def receive_closing_complete(
    ch: Channel, message: ClosingComplete, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    """Sign the close that the peer pays for."""
    closing, features = ch.closing, ch.features
    if closing is None or not closing.started or not features.simple_close:
        raise PeerFault("closing_complete before its time")
    if message.closee_scriptpubkey != closing.local_script:
        return warn(ch, "closing_complete pays to a script of ours that is out of date")
    script = message.closer_scriptpubkey
    if not is_standard_shutdown_script(script, features.shutdown_anysegwit, features.simple_close):
        return warn(ch, "closer_scriptpubkey has no standard form")
    if features.upfront_shutdown_script and ch.remote.upfront_shutdown_script not in (b"", script):
        return warn(ch, "closer_scriptpubkey is not the one promised")
    ch = replace(ch, closing=replace(closing, remote_script=script))
    signatures = _signatures(message)
    variant = accepted_variant(payouts(ch)[0], signatures)
    close = _close(ch, variant, message.fee_satoshis, message.locktime, ours=False)
    if not secp.verify(ch.remote.funding_pubkey, close.sighash, signatures[variant]):
        raise PeerFault("invalid signature in closing_complete")
    signature = secp.sign(keys.funding_secret, close.sighash)
    answer = ClosingSig(
        ch.channel_id,
        message.closer_scriptpubkey,
        message.closee_scriptpubkey,
        message.fee_satoshis,
        message.locktime,
        **{variant.value: signature},
    )
    tx = signed_closing(close, commitments.side(ch, local=True), signature, signatures[variant])
    return _bounded(agreed(ch, tx)), (Store(), Send(answer), Publish(tx, "mutual close"))


def receive_closing_sig(ch: Channel, message: ClosingSig, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """The peer signed the close that we pay for."""
    if ch.closing is None or ch.closing.offer is None:
        raise PeerFault("closing_sig where none is awaited")
    offer = ch.closing.offer
    named = (message.closer_scriptpubkey, message.closee_scriptpubkey, message.fee_satoshis, message.locktime)
    if named != (offer.closer_scriptpubkey, offer.closee_scriptpubkey, offer.fee_satoshis, offer.locktime):
        return warn(ch, "closing_sig is not for our closing_complete")
    signatures = _signatures(message)
    if len(signatures) != 1 or not signatures.keys() <= _signatures(offer).keys():
        raise PeerFault("closing_sig must carry one of the signatures that closing_complete did")
    ((variant, signature),) = signatures.items()
    # the peer may have moved its own output since, in a closing_complete of its own
    offered = replace(ch, closing=replace(ch.closing, remote_script=offer.closee_scriptpubkey))
    close = _close(offered, variant, offer.fee_satoshis, offer.locktime, ours=True)
    if not secp.verify(ch.remote.funding_pubkey, close.sighash, signature):
        raise PeerFault("invalid signature in closing_sig")
    own = secp.sign(keys.funding_secret, close.sighash)
    tx = signed_closing(close, commitments.side(ch, local=True), own, signature)
    after = agreed(replace(ch, closing=replace(ch.closing, offer=None)), tx)
    return _bounded(after), (Store(), Publish(tx, "mutual close"))


def _bounded(ch: Channel) -> Channel:
    assert ch.closing is not None, "a close was just agreed on"
    return replace(ch, closing=replace(ch.closing, txs=ch.closing.txs[-MAX_CLOSES:]))
