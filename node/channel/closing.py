"""BOLT 2, channel close: shutdown, and what follows once nothing is left in the commitments."""

from msgspec.structs import replace

from node.bitcoin.scripts import is_standard_shutdown_script
from node.channel import events
from node.channel.closing_legacy import begin_legacy
from node.channel.closing_model import Closing, Feerates
from node.channel.closing_simple import begin_simple
from node.channel.effects import Effects, Reply, Send, Store
from node.channel.failing import warn
from node.channel.model import Channel, Link, Phase, State
from node.channel.parameters import Policy
from node.crypto.derivation import ChannelKeys
from node.errors import PeerFault, Refused
from node.wire import bolt2

CLOSABLE = frozenset({Phase.FUNDING_CONFIRMED, Phase.NORMAL, Phase.SHUTTING_DOWN})
NEGOTIABLE = frozenset({Phase.SHUTTING_DOWN, Phase.NEGOTIATING, Phase.CLOSING})


def shutdown(ch: Channel, event: events.Shutdown, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """Close with the peer's consent; while that is under way, offer to pay more for it."""
    script = event.script or ch.shutdown_script
    _check_own_script(ch, script)
    if ch.phase in {Phase.NEGOTIATING, Phase.CLOSING}:
        return _pay_more(ch, event, script, keys)
    if ch.phase not in CLOSABLE:
        raise Refused(f"the channel is {ch.phase.value}")
    if ch.closing is not None and ch.closing.shutdown_sent:
        raise Refused("the channel is shutting down already")
    remote_script = ch.closing.remote_script if ch.closing else b""
    received = ch.closing is not None and ch.closing.shutdown_received
    closing = Closing(event.feerates, script, remote_script=remote_script, shutdown_received=received)
    after = replace(ch, phase=Phase.SHUTTING_DOWN, closing=closing)
    return after, (Store(), Reply(event.command_id))


def _check_own_script(ch: Channel, script: bytes) -> None:
    features = ch.features
    if not is_standard_shutdown_script(script, features.shutdown_anysegwit, features.simple_close):
        raise Refused("the peer would not accept this script")
    if ch.local.upfront_shutdown_script not in (b"", script):
        raise Refused("another script was promised when the channel was opened")


def _pay_more(
    ch: Channel, event: events.Shutdown, script: bytes, keys: ChannelKeys
) -> tuple[Channel, Effects]:
    assert ch.closing is not None, "a negotiation has begun"
    if not ch.features.simple_close or ch.link is not Link.ONLINE or not ch.closing.started:
        raise Refused("the close cannot be renegotiated now")
    if ch.closing.offer is not None:
        raise Refused("the peer has not answered our last closing_complete")
    closing = replace(ch.closing, feerates=event.feerates, local_script=script)
    after, effects = begin_simple(replace(ch, closing=closing), keys)
    return after, (*effects, Reply(event.command_id))


def receive_shutdown(ch: Channel, message: bolt2.Shutdown, policy: Policy) -> tuple[Channel, Effects]:
    if ch.phase not in CLOSABLE | NEGOTIABLE:
        raise PeerFault(f"shutdown while {ch.phase.value}")
    if any(htlc.state is State.ADD_SENT for htlc in ch.received.values()):
        raise PeerFault("shutdown with updates that are not signed")
    features, script = ch.features, message.scriptpubkey
    if not is_standard_shutdown_script(script, features.shutdown_anysegwit, features.simple_close):
        return warn(ch, "the shutdown script has no standard form")
    if features.upfront_shutdown_script and ch.remote.upfront_shutdown_script not in (b"", script):
        return warn(ch, "the shutdown script is not the one promised")
    closing = ch.closing or Closing(_feerates(policy), ch.shutdown_script)
    after = replace(
        ch,
        phase=ch.phase if ch.phase in NEGOTIABLE else Phase.SHUTTING_DOWN,
        closing=replace(closing, remote_script=script, shutdown_received=True),
    )
    return after, (Store(),)


def _feerates(policy: Policy) -> Feerates:
    return Feerates(policy.close_feerate_per_kw, policy.min_feerate_per_kw, policy.max_feerate_per_kw)


def proceed(ch: Channel, keys: ChannelKeys) -> tuple[Channel, Effects]:
    """Take the next step of a close that only waited for updates to clear."""
    if ch.closing is None or ch.link is not Link.ONLINE or ch.phase not in NEGOTIABLE:
        return ch, ()
    effects: Effects = ()
    if not ch.closing.shutdown_sent and not _has_unsigned_updates(ch):
        ch, effects = replace(ch, closing=replace(ch.closing, shutdown_sent=True)), (Store(),)
        effects += (Send(shutdown_message(ch)),)
    closing = ch.closing
    assert closing is not None, "it was there above"
    if closing.started or not (closing.shutdown_sent and closing.shutdown_received and is_clear(ch)):
        return ch, effects
    phase = Phase.NEGOTIATING if ch.phase is Phase.SHUTTING_DOWN else ch.phase
    ch = replace(ch, phase=phase, closing=replace(closing, started=True))
    after, more = (begin_simple if ch.features.simple_close else begin_legacy)(ch, keys)
    return after, effects + more


def shutdown_message(ch: Channel) -> bolt2.Shutdown:
    assert ch.closing is not None, "there is a close to announce"
    return bolt2.Shutdown(ch.channel_id, ch.closing.local_script)


def _has_unsigned_updates(ch: Channel) -> bool:
    """BOLT 2, shutdown: not while updates of ours are pending on the peer's commitment."""
    return (
        any(htlc.state is State.ADD_SENT for htlc in ch.offered.values())
        or any(htlc.state is State.REMOVE_SENT for htlc in ch.received.values())
        or (ch.is_opener and State.ADD_SENT in ch.feerates)
    )


def is_clear(ch: Channel) -> bool:
    """No HTLCs anywhere, no revocation owed, every fee update arrived."""
    return not ch.offered and not ch.received and ch.remote_next is None and len(ch.feerates) == 1
