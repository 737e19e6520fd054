"""BOLT 2, normal operation: adding, removing and pricing, before anything is committed."""

from msgspec.structs import replace

from node.channel import limits, views
from node.channel.effects import Effects, HtlcFulfilled, Reply, Send, Store
from node.channel.events import Add, UpdateFee
from node.channel.model import (
    UPDATING,
    Channel,
    Failed,
    Fulfilled,
    Htlc,
    Link,
    Malformed,
    Resolution,
    State,
)
from node.channel.parameters import Policy
from node.channel.updates import with_feerate
from node.crypto.hashes import sha256
from node.errors import PeerFault, Refused
from node.wire import bolt2
from node.wire.codec import Message

ONION_SIZE = 1_366
BADONION = 0x8000
MAX_REASON_SIZE = 4_096  # honest failures are 292 bytes; longer ones are unreadable and only fill the store


def is_updating(ch: Channel) -> bool:
    """Whether update messages may travel now."""
    return ch.phase in UPDATING and ch.link is Link.ONLINE


def add(ch: Channel, event: Add, policy: Policy) -> tuple[Channel, Effects]:
    """Offer an HTLC."""
    if not ch.is_usable:
        raise Refused(f"the channel is {ch.phase.value}, {ch.link.value}")
    if len(event.onion) != ONION_SIZE or len(event.payment_hash) != len(ch.channel_id):
        raise Refused("malformed onion or payment hash")
    htlc = Htlc(
        ch.next_offered_id,
        event.amount_msat,
        event.payment_hash,
        event.cltv_expiry,
        State.ADD_SENT,
        event.onion,
        event.path_key,
    )
    after = replace(
        ch,
        remote_view=limits.check_offer(ch, htlc, policy),
        offered=ch.offered | {htlc.id: htlc},
        next_offered_id=htlc.id + 1,
        unsigned_changes=True,
    )
    return after, (Store(), Send(add_message(ch, htlc)), Reply(event.command_id, value=htlc.id))


def add_message(ch: Channel, htlc: Htlc) -> bolt2.UpdateAddHtlc:
    return bolt2.UpdateAddHtlc(
        ch.channel_id,
        htlc.id,
        htlc.amount_msat,
        htlc.payment_hash,
        htlc.cltv_expiry,
        htlc.onion,
        path_key=htlc.path_key,
    )


def receive_add(ch: Channel, message: bolt2.UpdateAddHtlc, policy: Policy) -> tuple[Channel, Effects]:
    require_updating(ch)
    if ch.closing is not None and ch.closing.shutdown_received:
        raise PeerFault("update_add_htlc after shutdown")
    htlc = Htlc(
        message.id,
        message.amount_msat,
        message.payment_hash,
        message.cltv_expiry,
        State.ADD_SENT,
        message.onion_routing_packet,
        message.path_key,
    )
    view = views.enter(ch.local_view, htlc, views.dust(ch, local=True), offered=False)
    limits.check_received(ch, htlc, view)
    if ch.closing is not None or limits.exceeds_dust(ch, htlc, view, policy):
        htlc = replace(htlc, must_fail=True)
    after = replace(ch, local_view=view, received=ch.received | {htlc.id: htlc}, next_received_id=htlc.id + 1)
    return after, ()


def require_updating(ch: Channel) -> None:
    if ch.phase not in UPDATING or not (ch.ready_sent and ch.ready_received):
        raise PeerFault(f"an update while {ch.phase.value}")


def resolve(ch: Channel, htlc_id: int, resolution: Resolution) -> tuple[Channel, Effects]:
    """Decide a received HTLC: told to the peer now, or when it is back. Never fails what has a preimage."""
    htlc = ch.received.get(htlc_id)
    if htlc is None or htlc.resolution == resolution or isinstance(htlc.resolution, Fulfilled):
        return ch, ()  # done before, perhaps until the very end
    if htlc.state is not State.COMMITTED:
        raise Refused(f"HTLC {htlc_id} is {htlc.state.name}")
    _check_resolution(htlc, resolution)
    decided = replace(htlc, resolution=resolution, onion=b"")
    ch = replace(ch, received=ch.received | {htlc_id: decided})
    if not is_updating(ch):
        return ch, (Store(),)
    after, message = send_removal(ch, decided)
    return after, (Store(), Send(message))


def _check_resolution(htlc: Htlc, resolution: Resolution) -> None:
    match resolution:
        case Fulfilled(preimage):
            if sha256(preimage) != htlc.payment_hash:
                raise Refused("not the preimage of this HTLC")
        case Failed(reason):
            if len(reason) > MAX_REASON_SIZE:
                raise Refused("a failure reason that large fits into no message")
        case Malformed(_, failure_code):
            if not failure_code & BADONION:
                raise Refused("update_fail_malformed_htlc is for unreadable onions")


def send_removal(ch: Channel, htlc: Htlc) -> tuple[Channel, Message]:
    """Tell the peer what was decided about one of its HTLCs."""
    after = replace(
        ch,
        received=ch.received | {htlc.id: replace(htlc, state=State.REMOVE_SENT)},
        remote_view=views.leave(ch.remote_view, htlc, views.dust(ch, local=False), offered=False),
        unsigned_changes=True,
    )
    return after, removal_message(ch, htlc)


def removal_message(ch: Channel, htlc: Htlc) -> Message:
    match htlc.resolution:
        case Fulfilled(preimage):
            return bolt2.UpdateFulfillHtlc(ch.channel_id, htlc.id, preimage)
        case Failed(reason):
            return bolt2.UpdateFailHtlc(ch.channel_id, htlc.id, reason)
        case Malformed(sha256_of_onion, failure_code):
            return bolt2.UpdateFailMalformedHtlc(ch.channel_id, htlc.id, sha256_of_onion, failure_code)
        case None:
            raise AssertionError("only a decided HTLC is removed")


def receive_fulfill(ch: Channel, message: bolt2.UpdateFulfillHtlc) -> tuple[Channel, Effects]:
    """The preimage is told at once: nothing that happens later can make it unknown."""
    htlc = _offered(ch, message.id)
    if sha256(message.payment_preimage) != htlc.payment_hash:
        raise PeerFault(f"wrong preimage for HTLC {htlc.id}")
    resolution = Fulfilled(message.payment_preimage)
    after = _receive_removal(ch, htlc, resolution)
    if htlc.resolution == resolution:
        return after, ()  # learned before the last reconnection
    return after, (Store(), HtlcFulfilled(htlc.id, message.payment_preimage))


def receive_fail(ch: Channel, message: bolt2.UpdateFailHtlc) -> tuple[Channel, Effects]:
    reason = message.reason if len(message.reason) <= MAX_REASON_SIZE else b""
    return _receive_removal(ch, _offered(ch, message.id), Failed(reason)), ()


def receive_fail_malformed(ch: Channel, message: bolt2.UpdateFailMalformedHtlc) -> tuple[Channel, Effects]:
    if not message.failure_code & BADONION:
        raise PeerFault("update_fail_malformed_htlc without BADONION")
    resolution = Malformed(message.sha256_of_onion, message.failure_code)
    return _receive_removal(ch, _offered(ch, message.id), resolution), ()


def _offered(ch: Channel, htlc_id: int) -> Htlc:
    require_updating(ch)
    htlc = ch.offered.get(htlc_id)
    if htlc is None:
        raise PeerFault(f"no HTLC {htlc_id} to remove")
    return htlc


def _receive_removal(ch: Channel, htlc: Htlc, resolution: Resolution) -> Channel:
    if htlc.state >= State.REMOVE_SENT and htlc.resolution == resolution:
        return ch  # said twice
    if htlc.state is not State.COMMITTED:
        raise PeerFault(f"HTLC {htlc.id} is removed while {htlc.state.name}")
    if htlc.resolution is not None and htlc.resolution != resolution:
        raise PeerFault(f"HTLC {htlc.id} was fulfilled and is failed")
    removed = replace(htlc, state=State.REMOVE_SENT, resolution=resolution)
    return replace(
        ch,
        offered=ch.offered | {htlc.id: removed},
        local_view=views.leave(ch.local_view, removed, views.dust(ch, local=True), offered=True),
    )


def update_fee(ch: Channel, event: UpdateFee, policy: Policy) -> tuple[Channel, Effects]:
    """Ask for a fee rate, in place of one that is not signed yet; nothing where it cannot be."""
    rate = event.feerate_per_kw
    if not (ch.is_opener and is_updating(ch) and ch.ready_sent and ch.ready_received):
        return ch, ()
    if _is_settled_for_close(ch) or rate == views.next_feerate(ch, local=False):
        return ch, ()
    if not limits.affords_feerate(ch, rate, policy):
        return ch, ()
    after = replace(with_feerate(ch, ch.feerates | {State.ADD_SENT: rate}), unsigned_changes=True)
    return after, (Send(bolt2.UpdateFee(ch.channel_id, rate)),)


def _is_settled_for_close(ch: Channel) -> bool:
    """BOLT 2, shutdown: no update may follow once nothing is left to clear, as the peer may see it already."""
    return (
        ch.closing is not None
        and all(h.state > State.COMMITTED for h in ch.offered.values())
        and all(h.state > State.COMMITTED for h in ch.received.values())
    )


def receive_update_fee(ch: Channel, message: bolt2.UpdateFee, policy: Policy) -> tuple[Channel, Effects]:
    require_updating(ch)
    limits.check_received_feerate(ch, message.feerate_per_kw, policy)
    return with_feerate(ch, ch.feerates | {State.ADD_SENT: message.feerate_per_kw}), ()


def take(ch: Channel, htlc_id: int) -> tuple[Channel, Effects]:
    """The backend knows what to do with a received HTLC: forget its onion."""
    htlc = ch.received.get(htlc_id)
    if htlc is None or not htlc.onion or htlc.state < State.COMMITTED:
        return ch, ()
    return replace(ch, received=ch.received | {htlc_id: replace(htlc, onion=b"")}), ()
