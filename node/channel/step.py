"""The channel as a pure function: an event in, the next channel and the effects out.

No IO, no clock, no chance. What a peer sends can at worst fail the channel, what our side asks can at worst be
refused; neither raises. Effects are to be carried out in their order, the channel stored where they say so.
"""

from typing import assert_never

from node.channel import (
    chain,
    closing,
    closing_legacy,
    closing_simple,
    events,
    normal,
    opening,
    ready,
)
from node.channel.effects import Effects, HtlcReady, Reply, Send
from node.channel.failing import error, fail, force_close, forget, receive_error, warn
from node.channel.model import (
    ENDED,
    OPENING,
    SAT,
    Channel,
    Failed,
    Fulfilled,
    Link,
    Malformed,
    State,
)
from node.channel.parameters import Policy
from node.channel.reestablish import (
    adopted,
    connected,
    disconnected,
    held,
    receive_reestablish,
    restored,
)
from node.channel.signing import receive_commitment_signed, receive_revoke_and_ack, sign
from node.crypto.derivation import ChannelKeys
from node.errors import PeerFault, Refused
from node.wire import bolt1, bolt2, bolt7
from node.wire.codec import Message


def step(ch: Channel, event: events.Event, keys: ChannelKeys, policy: Policy) -> tuple[Channel, Effects]:
    """Advance a channel by one event. Never raises for what a peer or a user can cause."""
    try:
        after, effects = _step(ch, event, keys, policy)
    except PeerFault as fault:
        after, effects = fail(ch, keys, str(fault))
    except Refused as why:
        return ch, _refusal(event, str(why))
    if after.local_commit is not None:
        capacity_msat = after.funding_sat * SAT
        assert after.local_view.total_msat == capacity_msat, "an event moves msat, never makes or loses it"
        assert after.remote_view.total_msat == capacity_msat, "an event moves msat, never makes or loses it"
    return after, effects


def pending_ready(ch: Channel) -> Effects:
    """After a restart: the received HTLCs that no Taken followed, to be decided again."""
    return tuple(
        HtlcReady(htlc)
        for htlc in ch.received.values()
        if htlc.onion and htlc.state is State.COMMITTED and htlc.resolution is None
    )


def _refusal(event: events.Event, why: str) -> Effects:
    match event:
        case events.Add() | events.Shutdown() | events.ForceClose():
            return (Reply(event.command_id, why),)
        case _:
            return ()  # commands without a reply are repeated by their nature


def _step(ch: Channel, event: events.Event, keys: ChannelKeys, policy: Policy) -> tuple[Channel, Effects]:
    match event:
        case events.Received(message):
            return _received(ch, message, keys, policy)
        case events.Sign():
            return _followed(sign(ch, keys), keys, policy)
        case events.Add():
            return normal.add(ch, event, policy)
        case events.Fulfill(htlc_id, preimage):
            return normal.resolve(ch, htlc_id, Fulfilled(preimage))
        case events.Fail(htlc_id, reason):
            return normal.resolve(ch, htlc_id, Failed(reason))
        case events.FailMalformed(htlc_id, sha256_of_onion, failure_code):
            return normal.resolve(ch, htlc_id, Malformed(sha256_of_onion, failure_code))
        case events.Taken(htlc_id):
            return normal.take(ch, htlc_id)
        case events.UpdateFee():
            return normal.update_fee(ch, event, policy)
        case events.Connected(features):
            return connected(ch, features, keys)
        case events.Disconnected():
            return disconnected(ch)
        case events.Restored():
            return restored(ch)
        case events.Held():
            return held(ch)
        case events.Adopted():
            return _followed(adopted(ch), keys, policy)
        case events.Shutdown():
            return _followed(closing.shutdown(ch, event, keys), keys, policy)
        case events.ForceClose(command_id, reason):
            return _force_close(ch, keys, command_id, reason)
        case events.Abandon(reason):
            return forget(ch, reason) if ch.phase in OPENING else (ch, ())
        case events.Funded():
            return opening.funded(ch, event, keys)
        case events.FundingConfirmed() | events.FundingUnconfirmed() | events.FundingSpent() | events.Block():
            return _followed(_chain(ch, event, keys, policy), keys, policy)
        case _:
            assert_never(event)


def _chain(
    ch: Channel,
    event: events.FundingConfirmed | events.FundingUnconfirmed | events.FundingSpent | events.Block,
    keys: ChannelKeys,
    policy: Policy,
) -> tuple[Channel, Effects]:
    match event:
        case events.FundingConfirmed():
            return chain.funding_confirmed(ch, event)
        case events.FundingUnconfirmed():
            return chain.funding_unconfirmed(ch)
        case events.FundingSpent():
            return chain.funding_spent(ch, event)
        case events.Block():
            return chain.block(ch, event, keys, policy)


def _force_close(ch: Channel, keys: ChannelKeys, command_id: int, reason: str) -> tuple[Channel, Effects]:
    if ch.phase in OPENING:
        after, effects = forget(ch, reason)
    elif ch.phase in ENDED:
        raise Refused(f"the channel is {ch.phase.value}")
    else:
        after, effects = force_close(ch, keys, reason)
    return after, (*effects, Reply(command_id))


def _followed(result: tuple[Channel, Effects], keys: ChannelKeys, policy: Policy) -> tuple[Channel, Effects]:
    """What an event may have made possible besides its own answer: to be ready, to announce, to close."""
    ch, effects = result
    if ch.phase in ENDED or ch.phase in OPENING:
        return result
    ch, more = ready.proceed(ch, keys, policy)
    ch, closes = closing.proceed(ch, keys)
    return ch, effects + more + closes


def _received(ch: Channel, message: Message, keys: ChannelKeys, policy: Policy) -> tuple[Channel, Effects]:
    if isinstance(message, bolt1.Error):
        return receive_error(ch, message, keys)
    if ch.link in {Link.OFFLINE, Link.HELD} or isinstance(message, bolt1.Warning):
        return ch, ()
    if ch.phase in ENDED:
        lost = isinstance(message, bolt2.ChannelReestablish) and ch.failure
        return ch, (Send(error(ch, ch.failure)),) if lost else ()
    if isinstance(message, bolt2.ChannelReestablish) is not (ch.link is Link.SYNCING):
        # BOLT 2: before anything else each side says where it is, and it says so once
        return warn(ch, f"unexpected {type(message).__name__}")
    match message:
        case bolt2.UpdateAddHtlc():
            return normal.receive_add(ch, message, policy)
        case bolt2.UpdateFulfillHtlc():
            return normal.receive_fulfill(ch, message)
        case bolt2.UpdateFailHtlc():
            return normal.receive_fail(ch, message)
        case bolt2.UpdateFailMalformedHtlc():
            return normal.receive_fail_malformed(ch, message)
        case bolt2.UpdateFee():
            return normal.receive_update_fee(ch, message, policy)
        case _:
            return _followed(_received_turn(ch, message, keys, policy), keys, policy)


def _received_turn(
    ch: Channel, message: Message, keys: ChannelKeys, policy: Policy
) -> tuple[Channel, Effects]:
    """Messages after which it may be our turn to say something else."""
    match message:
        case bolt2.CommitmentSigned():
            return receive_commitment_signed(ch, message, keys)
        case bolt2.RevokeAndAck():
            return receive_revoke_and_ack(ch, message)
        case bolt2.ChannelReestablish():
            return receive_reestablish(ch, message, keys)
        case bolt2.ChannelReady():
            return ready.receive_ready(ch, message)
        case bolt7.AnnouncementSignatures():
            return ready.receive_announcement_signatures(ch, message, keys, policy)
        case bolt2.Shutdown():
            return closing.receive_shutdown(ch, message, policy)
        case bolt2.ClosingSigned():
            return closing_legacy.receive_closing_signed(ch, message, keys)
        case bolt2.ClosingComplete():
            return closing_simple.receive_closing_complete(ch, message, keys)
        case bolt2.ClosingSig():
            return closing_simple.receive_closing_sig(ch, message, keys)
        case bolt2.AcceptChannel():
            return opening.receive_accept(ch, message, policy)
        case bolt2.FundingCreated():
            return opening.receive_funding_created(ch, message, keys)
        case bolt2.FundingSigned():
            return opening.receive_funding_signed(ch, message, keys)
        case _:
            raise PeerFault(f"unexpected {type(message).__name__}")
