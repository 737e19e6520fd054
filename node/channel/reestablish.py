"""BOLT 2, message retransmission: two numbers tell each side what the other has lost."""

from msgspec.structs import replace

from node.channel import commitments, normal
from node.channel.closing import shutdown_message
from node.channel.closing_model import reconnected
from node.channel.effects import Effect, Effects, Send, Store
from node.channel.failing import error, forget, lose_data
from node.channel.model import ENDED, OPENING, Channel, Link, Phase, State
from node.channel.normal import add_message, removal_message
from node.channel.parameters import Negotiated
from node.channel.ready import ready_message
from node.channel.signing import revocation
from node.channel.updates import forget_uncommitted
from node.crypto.derivation import ChannelKeys, per_commitment_point, per_commitment_secret
from node.crypto.shachain import FIRST_INDEX
from node.errors import PeerFault
from node.wire.bolt2 import ChannelReestablish, CommitmentSigned, UpdateFee
from node.wire.codec import Message


def disconnected(ch: Channel) -> tuple[Channel, Effects]:
    """Undo what was not signed; a channel without funding is not remembered."""
    if ch.phase in OPENING:
        return forget(ch, "the connection was lost", tell=False)
    if ch.phase in ENDED:
        return replace(ch, link=Link.OFFLINE), ()
    after, dropped = forget_uncommitted(ch)
    after = replace(after, link=Link.OFFLINE, announcement_sent=False, early_announcement=None)
    if after.closing is not None:
        phase = Phase.SHUTTING_DOWN if after.phase is Phase.NEGOTIATING else after.phase
        after = replace(after, phase=phase, closing=reconnected(after.closing))
    return after, (Store(), *dropped)


def restored(ch: Channel) -> tuple[Channel, Effects]:
    """Nothing of this channel is published before its peer has shown where it stands."""
    if ch.phase in ENDED or ch.phase in OPENING or ch.phase is Phase.CLOSING:
        return ch, ()
    return replace(ch, unproven=True), (Store(),)


def connected(ch: Channel, features: Negotiated, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """Say where we are, before anything else is said about the channel."""
    if ch.phase in ENDED:
        return _told_again(ch)
    if ch.link is not Link.OFFLINE:
        ch, effects = disconnected(ch)
    else:
        effects = ()
    after = replace(ch, link=Link.SYNCING, features=features)
    return after, (*effects, Send(_message(after, keys)))


def held(ch: Channel) -> tuple[Channel, Effects]:
    """As it is, and silent, until the peer's session is adopted or turns out to be over."""
    return (replace(ch, link=Link.HELD), ()) if ch.is_quiet else disconnected(ch)


def adopted(ch: Channel) -> tuple[Channel, Effects]:
    """Go on in the same stream of messages, with what was decided meanwhile."""
    assert ch.link is Link.HELD, "only what was held is adopted"
    assert ch.phase in ENDED or not ch.unproven, "of an older copy nothing is held"
    if ch.phase in ENDED:
        return _told_again(ch)
    after, decisions = _send_decisions(replace(ch, link=Link.ONLINE))
    sends = tuple(Send(message) for message in decisions)
    return after, (Store(), *sends) if sends else ()


def _told_again(ch: Channel) -> tuple[Channel, Effects]:
    ch = replace(ch, link=Link.ONLINE)
    return ch, (Send(error(ch, ch.failure)),) if ch.failure else ()


def _message(ch: Channel, keys: ChannelKeys) -> ChannelReestablish:
    assert ch.local_commit is not None, "only a funded channel is reestablished"
    assert ch.remote_commit is not None, "only a funded channel is reestablished"
    revoked = ch.remote_commit.number
    secret = ch.shachain.lookup(FIRST_INDEX - (revoked - 1)) if revoked else bytes(32)
    assert secret is not None, "every secret received is kept"
    return ChannelReestablish(
        ch.channel_id,
        next_commitment_number=ch.local_commit.number + 1,
        next_revocation_number=revoked,
        your_last_per_commitment_secret=secret,
        my_current_per_commitment_point=per_commitment_point(keys.commitment_seed, ch.local_commit.number),
    )


def receive_reestablish(
    ch: Channel, message: ChannelReestablish, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    """Send again what the peer has not got, in the order it was sent, then what we have decided since."""
    assert ch.local_commit is not None, "only a funded channel is reestablished"
    if _proves_our_loss(ch, message, keys):
        return lose_data(ch, "our channel state is old: please close the channel")
    resend_revocation = _lacks_revocation(ch, message, keys)
    resend_signature = _lacks_signature(ch, message)
    signatures = _signed_again(ch, keys) if resend_signature else []
    revocations: list[Message] = [revocation(ch, keys)] if resend_revocation else []
    messages = signatures + revocations if ch.revoked_last else revocations + signatures
    if ch.ready_sent and message.next_commitment_number == 1 and ch.local_commit.number == 0:
        messages = [ready_message(ch, keys), *messages]
    if ch.closing is not None and ch.closing.shutdown_sent:
        messages.append(shutdown_message(ch))
    after, decisions = _send_decisions(replace(ch, link=Link.ONLINE, unproven=False))
    effects: list[Effect] = [Send(sent) for sent in messages + decisions]
    return after, (Store(), *effects) if decisions or ch.unproven else tuple(effects)


def _proves_our_loss(ch: Channel, message: ChannelReestablish, keys: ChannelKeys) -> bool:
    """Whether the peer holds a secret that we cannot remember giving away.

    Its numbers alone prove nothing: anyone can say that we are late.
    """
    assert ch.local_commit is not None, "only a funded channel is reestablished"
    number = message.next_revocation_number
    if not ch.local_commit.number < number <= FIRST_INDEX:
        return False
    secret = per_commitment_secret(keys.commitment_seed, number - 1)
    return message.your_last_per_commitment_secret == secret


def _lacks_revocation(ch: Channel, message: ChannelReestablish, keys: ChannelKeys) -> bool:
    """Whether our last revoke_and_ack got lost. PeerFault where the peer's account cannot be."""
    assert ch.local_commit is not None, "only a funded channel is reestablished"
    sent, received = ch.local_commit.number, message.next_revocation_number
    if received not in {sent, sent - 1}:
        raise PeerFault(f"next_revocation_number is {received} where we have revoked {sent}")
    expected = per_commitment_secret(keys.commitment_seed, received - 1) if received else bytes(32)
    if message.your_last_per_commitment_secret != expected:
        raise PeerFault("your_last_per_commitment_secret is not ours")
    return received == sent - 1


def _lacks_signature(ch: Channel, message: ChannelReestablish) -> bool:
    """Whether our last commitment_signed got lost. PeerFault where the peer's account cannot be."""
    assert ch.remote_commit is not None, "only a funded channel is reestablished"
    sent, expected = ch.remote_next or ch.remote_commit, message.next_commitment_number
    if expected == sent.number + 1:
        return False
    if expected == sent.number and ch.remote_next is not None:
        return True
    raise PeerFault(f"next_commitment_number is {expected} where we have signed {sent.number}")


def _signed_again(ch: Channel, keys: ChannelKeys) -> list[Message]:
    """The updates that our lost commitment_signed covered, and the same signature once more.

    Removals and the fee rate come first: whatever was affordable together is so in this order too.
    """
    assert ch.remote_next is not None, "there is a signature to repeat"
    removed = [h for h in ch.received.values() if h.state is State.REMOVE_SIGNED]
    added = [h for h in ch.offered.values() if h.state is State.ADD_SIGNED]
    messages: list[Message] = [removal_message(ch, htlc) for htlc in removed]
    if ch.is_opener and State.ADD_SIGNED in ch.feerates:
        messages.append(UpdateFee(ch.channel_id, ch.feerates[State.ADD_SIGNED]))
    messages += [add_message(ch, htlc) for htlc in added]
    commitment = commitments.remote_next_commitment(ch, ch.remote_next)
    signature, htlc_signatures = commitments.sign(ch, keys, commitment, ch.remote_next_point)
    return [*messages, CommitmentSigned(ch.channel_id, signature, htlc_signatures)]


def _send_decisions(ch: Channel) -> tuple[Channel, list[Message]]:
    """What was decided about received HTLCs and never signed."""
    messages = []
    if normal.is_updating(ch):
        for htlc in ch.received.values():
            if htlc.state is State.COMMITTED and htlc.resolution is not None:
                ch, message = normal.send_removal(ch, htlc)
                messages.append(message)
    return ch, messages
