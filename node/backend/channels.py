"""The interpreter of channel effects: the only place where a channel's decisions become deeds.

The order is a promise: store, then send, then publish, then reply. `step` decides, the journal stores, and what has
to leave waits there until the rows are durable. What a step tells the rest of the backend (an HTLC is ready, failed,
settled) is passed on only after its own effects are queued, so that answers never overtake what they answer.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, assert_never

from node.backend.journal import Journal
from node.backend.session import Session
from node.backend.store import NEXT_KEY_INDEX, PUT_META, Parameters, Statements, Store, add, put
from node.bitcoin.transaction import txid
from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import Channel, Phase, decode, encode
from node.channel.parameters import Policy
from node.channel.step import pending_ready, step
from node.crypto.derivation import ChannelKeys, channel_keys
from node.runtime import logs

PUT = put("channels")
PUT_REVOKED = put("revoked")
ADD_PUBLISH = add("publishes")

# What `Channels._run` leaves to `Channels._run_rare`: the type checker holds the two to it.
RareEffect = (
    fx.StoreRevoked
    | fx.Identify
    | fx.Forget
    | fx.Disconnect
    | fx.Fund
    | fx.ReleaseFunding
    | fx.WatchFunding
    | fx.Publish
    | fx.Ready
    | fx.Announce
    | fx.ForceClosed
    | fx.Closed
)

log = logs.get("channel")


class Record:
    """A channel's place in the backend: its value, its keys, and what the store knows it by."""

    __slots__ = ("_stored", "channel", "key_index", "keys")

    def __init__(
        self, channel: Channel, keys: ChannelKeys, key_index: int, stored: Channel | None = None
    ) -> None:
        self.channel = channel
        self._stored = stored
        self.keys = keys
        self.key_index = key_index

    def statement(self) -> tuple[str, Parameters]:
        channel = self._stored = self.channel
        closed = int(channel.phase is Phase.CLOSED)
        return PUT, (channel.channel_id, self.key_index, encode(channel), closed)

    @property
    def is_dirty(self) -> bool:
        """Whether the store holds another value of the channel, or none."""
        return self.channel is not self._stored

    @property
    def node_id(self) -> bytes:
        return self.channel.remote_node_id


class Surroundings(Protocol):
    """Whom the interpreter talks to."""

    def session_of(self, node_id: bytes) -> Session | None: ...
    def end_session(self, node_id: bytes, reason: str) -> None: ...
    def fund(self, record: Record, effect: fx.Fund) -> None: ...
    def release_funding(self, tx: bytes) -> None: ...
    def watch_funding(self, record: Record, effect: fx.WatchFunding) -> None: ...
    def publish(self, tx: bytes, why: str) -> None: ...
    def replied(self, reply: fx.Reply) -> None: ...
    def ready(self, record: Record) -> None: ...
    def announced(self, record: Record, effect: fx.Announce) -> None: ...
    def closed(self, record: Record, reason: str) -> None: ...


class HtlcDesk(Protocol):
    """Who decides about HTLCs."""

    def htlc_ready(self, record: Record, effect: fx.HtlcReady) -> None: ...
    def htlc_fulfilled(self, record: Record, effect: fx.HtlcFulfilled) -> None: ...
    def htlc_failed(
        self, record: Record, effect: fx.HtlcFailed | fx.HtlcMalformed | fx.HtlcDropped
    ) -> None: ...
    def htlc_settled(self, record: Record, effect: fx.HtlcSettled) -> None: ...


class Channels:
    """All channels, and the one way to change them."""

    def __init__(
        self, journal: Journal, store: Store, seed: bytes, node_secret: bytes, policy: Policy
    ) -> None:
        self._journal = journal
        self._seed = seed
        self._node_secret = node_secret
        self.policy = policy
        self._next_key_index = store.next_key_index()
        self.by_id: dict[bytes, Record] = {}
        self.by_peer: dict[bytes, dict[bytes, Record]] = {}
        self._to_sign: dict[Record, None] = {}
        self._news: deque[Callable[[], None]] = deque()
        self._telling = False
        self.surroundings: Surroundings
        self.desk: HtlcDesk
        journal.before_commit(self._sign)

    # life

    def load(self, store: Store) -> None:
        """Take up the stored channels; every one is offline until its peer is back."""
        for row in store.channels():
            channel = decode(row.data)
            self._enter(Record(channel, self.keys(row.key_index), row.key_index, stored=channel))

    def restored(self) -> Statements:
        """After `load`, of an older copy: what we know may be revoked until the peers have shown what they know.

        What has to be durable before the database counts as ours again.
        """
        self.apply_all(self.by_id.values(), ev.Restored())
        return [(PUT, [record.statement()[1] for record in self.by_id.values()])]

    def resume(self, height: int, held: Callable[[bytes], bool]) -> None:
        """After `load`, with everything wired: nobody is connected, and this is the chain's height."""
        # the held ones first: what the end of another's channel fails upstream must find them silent
        for node_id in sorted(self.by_peer, key=lambda peer: not held(peer)):
            self.apply_all(self.of_peer(node_id), ev.Held() if held(node_id) else ev.Disconnected())
        self.apply_all(self.by_id.values(), ev.Block(height))

    def resume_htlcs(self) -> None:
        """Last: received HTLCs that nothing was decided about."""
        for record in list(self.by_id.values()):
            for effect in pending_ready(record.channel):
                self._decide_safely(record, effect)

    def _decide_safely(self, record: Record, effect: fx.Effect) -> None:
        """An onion that brings a fault of ours to light must not keep the node from starting."""
        try:
            self._interpret(record, (effect,))
        except Exception:
            log.exception("internal_error", channel=record.channel.channel_id.hex())

    def keys(self, key_index: int) -> ChannelKeys:
        return channel_keys(self._seed, key_index, self._node_secret)

    def new_keys(self) -> tuple[int, ChannelKeys]:
        """Keys that no channel has had (of this run or before)."""
        index = self._next_key_index
        self._next_key_index += 1
        self._journal.write(PUT_META, NEXT_KEY_INDEX, self._next_key_index.to_bytes(8, "big"))
        return index, self.keys(index)

    def add(self, channel: Channel, keys: ChannelKeys, key_index: int, effects: fx.Effects) -> Record:
        """A channel that was just made by `open_outgoing` or `open_incoming`."""
        record = Record(channel, keys, key_index)
        self._enter(record)
        self._interpret(record, effects)
        return record

    def of_peer(self, node_id: bytes) -> list[Record]:
        return list(self.by_peer.get(node_id, {}).values())

    def is_quiet(self, node_id: bytes) -> bool:
        """Whether nothing is uncommitted in any of a peer's channels."""
        return all(record.channel.is_quiet for record in self.of_peer(node_id))

    def find(self, node_id: bytes, channel_id: bytes) -> Record | None:
        """A peer's channel by its permanent or temporary id; another peer's is not found."""
        return self.by_peer.get(node_id, {}).get(channel_id)

    # events

    def apply(self, record: Record, event: ev.Event) -> fx.Effects:
        """Advance a channel by one event; its effects are queued, and returned for the caller to look at."""
        before = record.channel
        after, effects = step(before, event, record.keys, self.policy)
        if after.channel_id != before.channel_id and after.channel_id in self.by_id:
            # security: two channels never share an id; the step is as if it had not been
            return self.apply(record, ev.Abandon("this funding output is in use"))
        record.channel = after
        if before.phase is not record.channel.phase:
            log.info("phase", channel=record.channel.channel_id.hex(), phase=record.channel.phase.value)
        self._interpret(record, effects)
        return effects

    def apply_all(self, records: Iterable[Record], event: ev.Event) -> None:
        """An event that concerns many: a fault of ours in one channel does not keep it from the others."""
        for record in list(records):
            self._apply_safely(record, event)

    def _apply_safely(self, record: Record, event: ev.Event) -> bool:
        try:
            self.apply(record, event)
        except Exception:
            # `step` is pure: where it raised, nothing has changed
            channel_id = record.channel.channel_id.hex()
            log.exception("internal_error", channel=channel_id, event_type=type(event).__name__)
            return False
        return True

    def tell(self, news: Callable[[], None]) -> None:
        """Pass news on after all effects that are being queued now; never from within one another."""
        self._news.append(news)
        if self._telling:
            return
        self._telling = True
        try:
            while self._news:
                self._news.popleft()()
        finally:
            self._telling = False

    def _sign(self) -> None:
        """Once per transaction, commit to all that has come together since."""
        while self._to_sign:
            record, _ = self._to_sign.popitem()
            if record.channel.wants_to_sign and not self._apply_safely(record, ev.Sign()):
                self.surroundings.end_session(record.node_id, "internal error")

    # effects

    def _interpret(self, record: Record, effects: fx.Effects) -> None:
        telling, self._telling = self._telling, True
        try:
            for effect in effects:
                self._run(record, effect)
        finally:
            self._telling = telling
        if record.channel.wants_to_sign:
            self._to_sign[record] = None
            self._journal.wake()
        if self._news and not telling:
            self.tell(_nothing)

    def _run(self, record: Record, effect: fx.Effect) -> None:
        around, journal = self.surroundings, self._journal
        match effect:
            case fx.Store():
                journal.store(record)
            case fx.Send(message):
                session = around.session_of(record.node_id)
                if session is not None:
                    session.post(journal, message)
            case fx.HtlcReady():
                self.tell(partial(self.desk.htlc_ready, record, effect))
            case fx.HtlcFulfilled():
                self.tell(partial(self.desk.htlc_fulfilled, record, effect))
            case fx.HtlcFailed() | fx.HtlcMalformed() | fx.HtlcDropped():
                self.tell(partial(self.desk.htlc_failed, record, effect))
            case fx.HtlcSettled():
                self.tell(partial(self.desk.htlc_settled, record, effect))
            case fx.Reply():
                journal.reply(partial(around.replied, effect))
            case _:
                self._run_rare(record, effect)

    def _run_rare(self, record: Record, effect: RareEffect) -> None:
        around, journal = self.surroundings, self._journal
        channel_id = record.channel.channel_id
        match effect:
            case fx.StoreRevoked(number, data):
                journal.write(PUT_REVOKED, channel_id, number, data)
            case fx.Identify():
                self._identify(record, effect)
            case fx.Forget():
                self._leave(record)
                journal.discard(record)
                journal.write("DELETE FROM channels WHERE channel_id = ?", channel_id)
            case fx.Disconnect(reason):
                journal.send(partial(around.end_session, record.node_id, reason))
            case fx.Fund():
                around.fund(record, effect)
            case fx.ReleaseFunding(tx):
                around.release_funding(tx)
            case fx.WatchFunding():
                journal.publish(partial(around.watch_funding, record, effect))
            case fx.Publish(tx, why):
                journal.write(ADD_PUBLISH, txid(tx), tx, why)
                journal.publish(partial(around.publish, tx, why))
            case fx.Ready():
                self.tell(partial(around.ready, record))
            case fx.Announce():
                self.tell(partial(around.announced, record, effect))
            case fx.ForceClosed(reason):
                log.error("force_closed", channel=channel_id.hex(), reason=reason)
                self.tell(partial(around.closed, record, reason))
            case fx.Closed():
                self._leave(record)
                journal.store(record)
                self.tell(partial(around.closed, record, "closed"))
            case _:
                assert_never(effect)

    def _enter(self, record: Record) -> None:
        channel_id = record.channel.channel_id
        self.by_id[channel_id] = record
        self.by_peer.setdefault(record.node_id, {})[channel_id] = record

    def _leave(self, record: Record) -> None:
        channel_id = record.channel.channel_id
        self.by_id.pop(channel_id, None)
        self._to_sign.pop(record, None)
        peers = self.by_peer.get(record.node_id, {})
        peers.pop(channel_id, None)
        if not peers:
            self.by_peer.pop(record.node_id, None)

    def _identify(self, record: Record, effect: fx.Identify) -> None:
        """The permanent id replaces the temporary one."""
        self.by_id.pop(effect.temporary_channel_id, None)
        self.by_peer[record.node_id].pop(effect.temporary_channel_id, None)
        self._enter(record)


def _nothing() -> None:
    """Sets the passing on of news going."""
