"""How a channel ends badly: forgotten before there is money in it, closed by force after."""

from msgspec.structs import replace

from node.channel import commitments
from node.channel.effects import (
    Disconnect,
    Effect,
    Effects,
    ForceClosed,
    Forget,
    Publish,
    ReleaseFunding,
    Reply,
    Send,
    Store,
)
from node.channel.model import ENDED, OPENING, Channel, Link, Phase
from node.channel.updates import forget_uncommitted
from node.crypto.derivation import ChannelKeys
from node.wire import bolt1

MAX_ERROR_SIZE = 256  # of what we say, and of what we remember that a peer said


def fail(ch: Channel, keys: ChannelKeys, reason: str) -> tuple[Channel, Effects]:
    """The peer broke the protocol."""
    if ch.phase in ENDED:
        return ch, ()
    if ch.phase in OPENING:
        return forget(ch, reason)
    if ch.phase is Phase.CLOSING:
        return warn(ch, reason)  # both have signed the end already: nothing better to publish
    return force_close(ch, keys, reason)


def warn(ch: Channel, reason: str) -> tuple[Channel, Effects]:
    """What the peer did can be repaired by a reconnection."""
    warning = bolt1.Warning(ch.channel_id, reason.encode()[:MAX_ERROR_SIZE])
    return ch, (Send(warning), Disconnect(reason))


def forget(ch: Channel, reason: str, *, tell: bool = True) -> tuple[Channel, Effects]:
    """Give up a channel whose funding output is not there."""
    effects: list[Effect] = [Forget()]
    if tell and ch.link is not Link.OFFLINE:
        effects.append(Send(error(ch, reason)))
    if ch.phase in OPENING and ch.funding is not None and ch.funding.tx:
        effects.append(ReleaseFunding(ch.funding.tx))
    if ch.opening is not None and ch.opening.command_id is not None:
        effects.append(Reply(ch.opening.command_id, reason))
    return replace(ch, phase=Phase.FORGOTTEN, failure=reason), tuple(effects)


def force_close(ch: Channel, keys: ChannelKeys, reason: str, *, tell: bool = True) -> tuple[Channel, Effects]:
    """Publish our commitment; everything that claiming from the chain needs stays in the channel."""
    if ch.unproven:
        return lose_data(ch, reason)
    tx = commitments.published(ch, keys)
    after, dropped = end_by_force(ch, Phase.FORCE_CLOSED, reason)
    sends = (Send(error(ch, reason)),) if tell and ch.link is not Link.OFFLINE else ()
    return after, (Store(), *sends, Publish(tx, "commitment"), *dropped, ForceClosed(reason))


def end_by_force(ch: Channel, phase: Phase, reason: str) -> tuple[Channel, Effects]:
    """The channel where no message counts any more: what was never signed will never be on the chain."""
    after, dropped = forget_uncommitted(ch)
    return replace(after, phase=phase, failure=reason), dropped


def lose_data(ch: Channel, reason: str) -> tuple[Channel, Effects]:
    """Our state is old, or may be: ask the peer to close, since what we would publish is revoked."""
    after, dropped = end_by_force(ch, Phase.DATA_LOSS, reason)
    return after, (Store(), Send(error(ch, reason)), *dropped, ForceClosed(reason))


def error(ch: Channel, reason: str) -> bolt1.Error:
    return bolt1.Error(ch.channel_id, reason.encode()[:MAX_ERROR_SIZE])


def receive_error(ch: Channel, message: bolt1.Error, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """BOLT 1, error: the channel fails for the peer, so it does for us."""
    text = message.data[:MAX_ERROR_SIZE].decode("ascii", "replace")
    reason = "the peer sent an error: " + "".join(c if c.isprintable() else "?" for c in text)
    if ch.phase in ENDED or ch.phase is Phase.CLOSING:
        return ch, ()
    if ch.phase in OPENING or _gave_up_funding(ch):
        return forget(ch, reason, tell=False)
    return force_close(ch, keys, reason, tell=False)


def _gave_up_funding(ch: Channel) -> bool:
    """An opener that lost our funding_signed on its way never publishes, and does not know the channel any more.

    There is nothing to close then; the accepter has no money in the channel before its funding is in a block.
    """
    is_new = ch.phase is Phase.FUNDING_CONFIRMED and not ch.ready_sent and not ch.ready_received
    return is_new and not ch.is_opener and ch.funding is not None and not ch.funding.height
