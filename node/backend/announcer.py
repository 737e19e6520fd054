"""What this node says of itself: its channel_updates, its node_announcement, and to each peer the terms of their
unannounced channel.
"""

from collections.abc import Iterable

from msgspec import Struct, msgpack
from msgspec.structs import replace

from node.backend.channels import Channels, Record
from node.backend.graph_keeper import GraphKeeper
from node.backend.journal import Journal
from node.backend.onion_file import onion_address
from node.backend.onions import Onions
from node.backend.session import Session
from node.backend.store import Store, put
from node.channel import effects as fx
from node.channel.limits import spendable_msat
from node.channel.model import Phase
from node.crypto.hashes import hash256
from node.crypto.keys import sign
from node.gossip import raw as gossip
from node.gossip.graph import ChannelAdded, ChannelUpdated, NodeAnnounced
from node.payment.invoice_fields import HintHop
from node.payment.relay import OutgoingChannel
from node.runtime.addresses import split_address
from node.runtime.config import BackendConfig
from node.runtime.runtime import Runtime
from node.wire.addresses import encode_address
from node.wire.bolt7 import ChannelUpdate, NodeAnnouncement
from node.wire.codec import encode
from node.wire.features import Features

DISABLE_AFTER_S = 600.0  # a peer that is away for less is not worth an update to the whole network
RENEW_AFTER_S = 7 * 24 * 3600  # half of what makes a channel stale
MAX_HINTS = 3  # of an invoice

PUT_TERMS = put("peer_terms")
MESSAGE_FLAGS = 1  # BOLT 7: htlc_maximum_msat is there


class Terms(Struct, frozen=True):
    """What a peer asks for HTLCs towards us over an unannounced channel."""

    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: int


class Announcer:
    """Makes and renews our announcements; also knows our channels by every id that others name them by."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        channels: Channels,
        keeper: GraphKeeper,
        config: BackendConfig,
        node_secret: bytes,
        node_id: bytes,
        features: Features,
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._keeper = keeper
        self._config = config
        self._secret = node_secret
        self._node_id = node_id
        self._features = features
        self._updates: dict[bytes, bytes] = {}  # our latest channel_update, by channel id
        self._terms: dict[bytes, Terms] = {}  # the peer's, by channel id
        self._by_scid: dict[int, Record] = {}
        self._offline_since: dict[bytes, float] = {}
        self._onions = Onions(runtime, journal, config.tor)

    def load(self, store: Store) -> None:
        for channel_id, data in store.rows("SELECT channel_id, data FROM peer_terms"):
            assert isinstance(channel_id, bytes)
            assert isinstance(data, bytes)
            self._terms[channel_id] = msgpack.decode(data, type=Terms)
        self._onions.load(store)

    # lookups

    def index(self, record: Record) -> None:
        """Find the channel by its real id and by the alias that we gave the peer."""
        channel = record.channel
        self._by_scid[channel.alias] = record
        # BOLT 2, option_scid_alias: the real id must not be known to forward over
        if channel.short_channel_id is not None and not channel.type.scid_alias:
            self._by_scid[channel.short_channel_id] = record

    def forget(self, record: Record) -> None:
        for short_channel_id in [scid for scid, known in self._by_scid.items() if known is record]:
            del self._by_scid[short_channel_id]
        self._updates.pop(record.channel.channel_id, None)
        if self._terms.pop(record.channel.channel_id, None) is not None:
            self._journal.write("DELETE FROM peer_terms WHERE channel_id = ?", record.channel.channel_id)

    def channel_of(self, short_channel_id: int) -> bytes | None:
        record = self._by_scid.get(short_channel_id)
        return None if record is None else record.channel.channel_id

    def lookup(self, short_channel_id: int) -> tuple[OutgoingChannel, ...]:
        """The channels with the peer that a forward names, the named one first (`relay.Lookup`)."""
        named = self._by_scid.get(short_channel_id)
        if named is None:
            return ()
        if len(peers := self._channels.by_peer.get(named.node_id, {})) == 1:
            return (self._outgoing(named),)
        others = [record for record in peers.values() if record is not named]
        return (self._outgoing(named), *map(self._outgoing, others))

    def _outgoing(self, record: Record) -> OutgoingChannel:
        channel, fees = record.channel, self._config.fees
        usable = channel.is_usable
        return OutgoingChannel(
            channel_id=channel.channel_id,
            fee_base_msat=fees.base_msat,
            fee_proportional_millionths=fees.ppm,
            cltv_expiry_delta=fees.cltv_delta,
            htlc_minimum_msat=channel.remote.htlc_minimum_msat,
            htlc_maximum_msat=_maximum_msat(record),
            enabled=True,
            usable=usable,
            spendable_msat=spendable_msat(channel, self._channels.policy) if usable else 0,
            channel_update=self._updates.get(channel.channel_id, b""),
        )

    def route_hints(self) -> tuple[tuple[HintHop, ...], ...]:
        """How to reach us over unannounced channels, where no announced one does."""
        records = [r for r in self._channels.by_id.values() if r.channel.is_usable]
        if any(record.channel.announce for record in records):
            return ()
        hints = [hint for record in records if (hint := self._hint(record)) is not None]
        return tuple((hint,) for hint in hints[:MAX_HINTS])

    def _hint(self, record: Record) -> HintHop | None:
        channel, terms = record.channel, self._terms.get(record.channel.channel_id)
        short_channel_id = channel.remote_alias or channel.short_channel_id
        if short_channel_id is None or terms is None:
            return None
        return HintHop(
            node_id=record.node_id,
            short_channel_id=short_channel_id,
            fee_base_msat=terms.fee_base_msat,
            fee_proportional_millionths=terms.fee_proportional_millionths,
            cltv_expiry_delta=terms.cltv_expiry_delta,
        )

    def learn_terms(self, record: Record, message: ChannelUpdate) -> None:
        """The peer told us the terms of our unannounced channel; they go into our invoices."""
        channel_id = record.channel.channel_id
        terms = Terms(message.fee_base_msat, message.fee_proportional_millionths, message.cltv_expiry_delta)
        if self._terms.get(channel_id) != terms:  # kept: not every peer says it again after a restart
            self._terms[channel_id] = terms
            self._journal.write(PUT_TERMS, channel_id, msgpack.encode(terms))

    # announcements

    def announced(self, record: Record, effect: fx.Announce) -> None:
        """A channel's announcement is complete: it and our side's terms go out."""
        self.index(record)
        raw = encode(effect.message)
        self._keeper.change(ChannelAdded(raw, record.channel.funding_sat))
        self._update(record)
        self._announce_node()

    def ready(self, record: Record, session: Session | None) -> None:
        """The peer learns our terms now: it can be paid over this channel before (or without) any announcement."""
        self.index(record)
        channel = record.channel
        short_channel_id = channel.remote_alias or channel.short_channel_id
        if session is not None and short_channel_id is not None and channel.remote_announcement is None:
            update = self._sign_update(record, short_channel_id, private=True)
            session.post(self._journal, update)

    def sweep(self) -> None:
        """Now and then: channels whose peer went away or came back, and updates that grow old."""
        if self._onions.is_due:
            self._runtime.spawn(self._look_for_onions(), "onion addresses")
        now_s = self._runtime.now()
        for channel_id, raw in list(self._updates.items()):
            record = self._channels.by_id.get(channel_id)
            if record is None:
                continue
            away = self._away(record, now_s)
            disabled = bool(raw[111] & gossip.DISABLE)
            if disabled != away or now_s - gossip.update_timestamp(raw) > RENEW_AFTER_S:
                self._update(record)

    def resume(self, records: Iterable[Record]) -> None:
        """After a restart: announce what the stored graph lacks."""
        for record in records:
            self.index(record)
            short_channel_id = record.channel.short_channel_id
            known = self._keeper.graph.channels.get(short_channel_id or 0)
            if record.channel.announce and known is not None:
                ours = known.update(int(self._node_id > record.node_id))
                if ours is not None:
                    self._updates[record.channel.channel_id] = ours
        self.sweep()
        if self._updates:
            self._announce_node()

    def _away(self, record: Record, now_s: float) -> bool:
        channel = record.channel
        if channel.is_usable:
            self._offline_since.pop(channel.channel_id, None)
            return False
        since_s = self._offline_since.setdefault(channel.channel_id, now_s)
        return channel.phase is not Phase.NORMAL or now_s - since_s > DISABLE_AFTER_S

    def _update(self, record: Record) -> None:
        short_channel_id = record.channel.short_channel_id
        assert short_channel_id is not None
        raw = encode(self._sign_update(record, short_channel_id, private=False))
        self._updates[record.channel.channel_id] = raw
        self._keeper.change(ChannelUpdated(raw))

    def _sign_update(self, record: Record, short_channel_id: int, *, private: bool) -> ChannelUpdate:
        now_s = self._runtime.now()
        known = self._updates.get(record.channel.channel_id)
        newest = 0 if known is None else gossip.update_timestamp(known)
        fees = self._config.fees
        direction = int(self._node_id > record.node_id)
        disable = gossip.DISABLE if self._away(record, now_s) else 0
        unsigned = ChannelUpdate(
            signature=bytes(64),
            chain_hash=record.channel.chain_hash,
            short_channel_id=short_channel_id,
            timestamp=max(int(now_s), newest + 1),
            message_flags=MESSAGE_FLAGS | (gossip.DONT_FORWARD if private else 0),
            channel_flags=direction | disable,
            cltv_expiry_delta=fees.cltv_delta,
            htlc_minimum_msat=max(1, record.channel.remote.htlc_minimum_msat),
            fee_base_msat=fees.base_msat,
            fee_proportional_millionths=fees.ppm,
            htlc_maximum_msat=_maximum_msat(record),
        )
        signature = sign(self._secret, hash256(encode(unsigned)[gossip.SIGNATURE_END :]))
        return replace(unsigned, signature=signature)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where we say that peers reach us."""
        return tuple(dict.fromkeys((*self._config.announce_addresses, *self._onions.addresses)))

    def tell_onion(self, address: str, *, announce: bool) -> bool:
        """What lntor says: peers reach us there, or no longer do. Whether it is announced now. Raises Refused."""
        onions = self._onions
        if not address:
            onions.check(announce=announce)
            return False
        if onions.hear(address) if announce else onions.withdraw(address):
            self._announce_node()
        return onion_address(address) in map(str.lower, self.addresses)

    async def _look_for_onions(self) -> None:
        if await self._onions.look():
            self._announce_node()

    def _announce_node(self) -> None:
        node = self._keeper.graph.nodes.get(self._node_id)
        if node is None:
            return
        known = node.announcement
        if known is not None and known[66:] == self._node_announcement(gossip.node_timestamp(known))[66:]:
            return
        newest = 0 if known is None else gossip.node_timestamp(known)
        self._keeper.change(NodeAnnounced(self._node_announcement(max(int(self._runtime.now()), newest + 1))))

    def _node_announcement(self, timestamp: int) -> bytes:
        config = self._config
        unsigned = NodeAnnouncement(
            signature=bytes(64),
            features=self._features.to_bytes(),
            timestamp=timestamp,
            node_id=self._node_id,
            rgb_color=bytes.fromhex(config.color),
            alias=config.alias.encode()[:32].ljust(32, b"\0"),
            addresses=b"".join(sorted(map(_descriptor, self.addresses))),
        )
        raw = encode(unsigned)
        return raw[:2] + sign(self._secret, hash256(raw[66:])) + raw[66:]


def _maximum_msat(record: Record) -> int:
    channel = record.channel
    return min(channel.funding_sat * 1_000, channel.remote.max_htlc_value_in_flight_msat)


def _descriptor(address: str) -> bytes:
    _, host, port = split_address(address)
    return encode_address(host, port)
