"""From the funding transaction's first block to an announced channel: BOLT 2, channel_ready, and BOLT 7."""

from msgspec.structs import replace

from node.channel.effects import Announce, Effects, Ready, Send, Store
from node.channel.failing import warn
from node.channel.model import OPENING, Channel, Link, Phase
from node.channel.parameters import Policy
from node.crypto import keys as secp
from node.crypto.derivation import ChannelKeys, per_commitment_point
from node.crypto.hashes import hash256
from node.errors import PeerFault
from node.wire import codec
from node.wire.bolt2 import ChannelReady
from node.wire.bolt7 import AnnouncementSignatures, ChannelAnnouncement

UNSIGNED_FROM = 2 + 4 * 64  # BOLT 7: the signatures cover what follows the type and themselves


def ready_message(ch: Channel, keys: ChannelKeys) -> ChannelReady:
    point = per_commitment_point(keys.commitment_seed, 1)
    return ChannelReady(ch.channel_id, point, short_channel_id=ch.alias)


def proceed(ch: Channel, keys: ChannelKeys, policy: Policy) -> tuple[Channel, Effects]:
    """Say that we are ready, and announce, as soon as the depth allows it."""
    if ch.link is not Link.ONLINE:
        return ch, ()
    effects: Effects = ()
    if ch.phase is Phase.FUNDING_CONFIRMED and not ch.ready_sent and ch.depth >= ch.minimum_depth:
        ch, effects = _if_both(replace(ch, ready_sent=True))
        effects = (Store(), Send(ready_message(ch, keys)), *effects)
    if _may_announce(ch, policy) and not ch.announcement_sent and ch.remote_announcement is None:
        ch, more = _send_signatures(ch, keys)
        effects += more
    if _may_announce(ch, policy) and ch.early_announcement is not None:
        message = AnnouncementSignatures(ch.channel_id, *ch.early_announcement)
        ch, more = receive_announcement_signatures(
            replace(ch, early_announcement=None), message, keys, policy
        )
        effects += more
    return ch, effects


def _if_both(ch: Channel) -> tuple[Channel, Effects]:
    if ch.phase is Phase.FUNDING_CONFIRMED and ch.ready_sent and ch.ready_received:
        return replace(ch, phase=Phase.NORMAL), (Ready(),)
    return ch, ()


def receive_ready(ch: Channel, message: ChannelReady) -> tuple[Channel, Effects]:
    if ch.phase in OPENING:
        raise PeerFault("channel_ready before the funding is signed")
    if message.short_channel_id is not None:
        ch = replace(ch, remote_alias=message.short_channel_id)
    if ch.ready_received:
        return ch, (Store(),)  # BOLT 2: redundant ones count for their alias only
    if not secp.is_valid_point(message.second_per_commitment_point):
        raise PeerFault("second_per_commitment_point is no point")
    after, effects = _if_both(
        replace(ch, ready_received=True, remote_next_point=message.second_per_commitment_point)
    )
    return after, (Store(), *effects)


def _may_announce(ch: Channel, policy: Policy) -> bool:
    """BOLT 7, announcement_signatures: ready both ways, deep enough, and no shutdown sent."""
    return (
        ch.announce
        and ch.phase is Phase.NORMAL
        and ch.depth >= policy.announce_depth
        and ch.short_channel_id is not None
    )


def _send_signatures(ch: Channel, keys: ChannelKeys) -> tuple[Channel, Effects]:
    digest = _digest(_announcement(ch, (bytes(64),) * 2, (bytes(64),) * 2))
    message = AnnouncementSignatures(
        ch.channel_id,
        ch.short_channel_id or 0,
        secp.sign(keys.node_secret, digest),
        secp.sign(keys.funding_secret, digest),
    )
    return replace(ch, announcement_sent=True), (Send(message),)


def receive_announcement_signatures(
    ch: Channel, message: AnnouncementSignatures, keys: ChannelKeys, policy: Policy
) -> tuple[Channel, Effects]:
    """Complete the announcement, or keep the peer's signatures until we are as far."""
    if not ch.announce:
        return ch, ()
    if not _may_announce(ch, policy):  # not stored: after a reconnection they come again
        early = (message.short_channel_id, message.node_signature, message.bitcoin_signature)
        return replace(ch, early_announcement=early), ()
    if message.short_channel_id != ch.short_channel_id:
        return warn(ch, "announcement_signatures for another short_channel_id")
    digest = _digest(_announcement(ch, (bytes(64),) * 2, (bytes(64),) * 2))
    if not secp.verify(ch.remote_node_id, digest, message.node_signature):
        return warn(ch, "invalid node_signature")
    if not secp.verify(ch.remote.funding_pubkey, digest, message.bitcoin_signature):
        return warn(ch, "invalid bitcoin_signature")
    effects: Effects = ()
    if not ch.announcement_sent:
        ch, effects = _send_signatures(ch, keys)
    if ch.remote_announcement is not None:
        return ch, effects  # the peer asks for ours once more
    after = replace(ch, remote_announcement=(message.node_signature, message.bitcoin_signature))
    return after, (Store(), *effects, Announce(announcement(after, keys)))


def announcement(ch: Channel, keys: ChannelKeys) -> ChannelAnnouncement:
    """The whole channel_announcement of a channel whose signatures were exchanged."""
    assert ch.remote_announcement is not None, "the peer has signed"
    digest = _digest(_announcement(ch, (bytes(64),) * 2, (bytes(64),) * 2))
    ours = (secp.sign(keys.node_secret, digest), secp.sign(keys.funding_secret, digest))
    return _announcement(ch, ours, ch.remote_announcement)


def _announcement(ch: Channel, ours: tuple[bytes, ...], theirs: tuple[bytes, ...]) -> ChannelAnnouncement:
    sides = sorted(
        (
            (ch.local_node_id, ch.local.funding_pubkey, *ours),
            (ch.remote_node_id, ch.remote.funding_pubkey, *theirs),
        )
    )
    (node_id_1, key_1, node_signature_1, signature_1), (node_id_2, key_2, node_signature_2, signature_2) = (
        sides
    )
    return ChannelAnnouncement(
        node_signature_1=node_signature_1,
        node_signature_2=node_signature_2,
        bitcoin_signature_1=signature_1,
        bitcoin_signature_2=signature_2,
        features=b"",
        chain_hash=ch.chain_hash,
        short_channel_id=ch.short_channel_id or 0,
        node_id_1=node_id_1,
        node_id_2=node_id_2,
        bitcoin_key_1=key_1,
        bitcoin_key_2=key_2,
    )


def _digest(message: ChannelAnnouncement) -> bytes:
    return hash256(codec.encode(message)[UNSIGNED_FROM:])
