"""Two channels joined back to back: what one sends is encoded, decoded and given to the other.

Every Store goes through the codec of the store, so that each test proves persistence on the way.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from node.bitcoin import transaction
from node.channel import effects as fx
from node.channel import events
from node.channel.closing_model import Feerates
from node.channel.events import Add, Connected, Disconnected, Fail, Fulfill, FundingConfirmed, Received, Sign
from node.channel.model import Channel, Phase, decode, encode
from node.channel.opening import open_incoming, open_outgoing, output_script
from node.channel.parameters import LocalParams, Negotiated, OpenRequest, Policy, Terms
from node.channel.step import pending_ready, step
from node.crypto.derivation import channel_keys
from node.crypto.hashes import sha256
from node.crypto.keys import public_key
from node.wire import codec
from node.wire.codec import Message
from node.wire.features import ChannelType

CHAIN = bytes.fromhex("06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f")
ANCHORS, STATIC = ChannelType(anchors=True), ChannelType(anchors=False)
FEATURES = Negotiated(scid_alias=True, large_channel=True, shutdown_anysegwit=True)
SIMPLE_CLOSE = msgspec.structs.replace(FEATURES, simple_close=True)
HEIGHT = 800_000
ONION = bytes(1366)
FEERATES = Feerates(1_000, 253, 10_000)
MAX_ROUNDS = 10_000


def params(name: str, **changes: object) -> LocalParams:
    return LocalParams(chain_hash=CHAIN, shutdown_script=b"\0\x14" + name.encode().ljust(20, b"."), **changes)


class End:
    """One side: its channel, what it stored, what it would have put on the wire, what it was told."""

    def __init__(self, name: str, policy: Policy | None = None) -> None:
        self.name = name
        self.node_secret = sha256(name.encode())
        self.node_id = public_key(self.node_secret)
        self.keys = channel_keys(sha256(b"seed of " + name.encode()), 0, self.node_secret)
        self.policy = policy or Policy()
        self.channel: Channel | None = None
        self.stored: bytes | None = None
        self.outbox: deque[bytes] = deque()
        self.log: list[fx.Effect] = []

    def do(self, event: events.Event) -> fx.Effects:
        assert self.channel is not None
        before = self.channel
        after, effects = step(before, event, self.keys, self.policy)
        self.channel = after
        self.take(effects)
        return effects

    def take(self, effects: fx.Effects) -> None:
        self.log += effects
        for effect in effects:
            match effect:
                case fx.Store():
                    self.stored = encode(self.channel)
                    assert decode(self.stored) == self.channel
                case fx.Forget():
                    self.stored = None
                case fx.Send(message):
                    self.outbox.append(codec.encode(message))
                case fx.Fund(script, amount_sat):
                    self.do(events.Funded(funding_tx(script, amount_sat), 0))

    def told(self, kind: type) -> list:
        return [effect for effect in self.log if isinstance(effect, kind)]

    def sent(self, kind: type[Message]) -> list[Message]:
        return [e.message for e in self.log if isinstance(e, fx.Send) and isinstance(e.message, kind)]

    def restart(self) -> None:
        """Come back with what is on disk; what was not sent before the crash never will be."""
        self.outbox.clear()
        self.channel = decode(self.stored) if self.stored is not None else None
        if self.channel is not None:
            self.do(Disconnected())
            self.take(pending_ready(self.channel))


def funding_tx(script: bytes, amount_sat: int) -> bytes:
    spent = transaction.Input(sha256(script), 0, witness=(b"w",))
    return transaction.Transaction(2, (spent,), (transaction.Output(amount_sat, script),), 0).serialize()


class Pair:
    """Alice, who opens, and Bob."""

    def __init__(
        self, alice: End | None = None, bob: End | None = None, features: Negotiated = FEATURES
    ) -> None:
        self.alice, self.bob = alice or End("alice"), bob or End("bob")
        self.features = features
        self.transcript: list[str] = []
        self.auto_sign = True

    @property
    def ends(self) -> tuple[End, End]:
        return self.alice, self.bob

    def other(self, end: End) -> End:
        return self.bob if end is self.alice else self.alice

    def open(
        self,
        channel_type: ChannelType = ANCHORS,
        *,
        funding_sat: int = 1_000_000,
        push_msat: int = 400_000_000,
        feerate_per_kw: int = 2_500,
        announce: bool = False,
        alice: LocalParams | None = None,
        bob: LocalParams | None = None,
    ) -> "Pair":
        request = OpenRequest(
            command_id=1,
            temporary_channel_id=sha256(b"temporary"),
            funding_sat=funding_sat,
            push_msat=push_msat,
            feerate_per_kw=feerate_per_kw,
            announce=announce,
            type=channel_type,
        )
        self.bob_params = bob or params("bob")
        self.alice.channel, effects = open_outgoing(
            request, self.terms(self.alice, alice or params("alice")), self.alice.keys, self.alice.policy
        )
        self.alice.take(effects)
        return self

    def terms(self, end: End, local: LocalParams) -> Terms:
        other = self.other(end)
        alias = int.from_bytes(end.node_id[1:9], "big")
        return Terms(
            remote_node_id=other.node_id, params=local, features=self.features, alias=alias, height=HEIGHT
        )

    def deliver(self, sender: End) -> Message:
        """One message of `sender` reaches the other side."""
        message = codec.decode(sender.outbox.popleft())
        receiver = self.other(sender)
        self.transcript.append(f"{sender.name}: {type(message).__name__}")
        if receiver.channel is None and type(message).__name__ == "OpenChannel":
            receiver.channel, effects = open_incoming(
                message, self.terms(receiver, self.bob_params), receiver.keys, receiver.policy
            )
            receiver.take(effects)
        elif receiver.channel is not None:
            receiver.do(Received(message))
        return message

    def settle(self, until: Callable[[], bool] = lambda: False) -> None:
        """Deliver and sign until there is nothing left to say."""
        for _ in range(MAX_ROUNDS):
            if until():
                return
            if self.auto_sign:
                for end in self.ends:
                    if end.channel is not None and end.channel.wants_to_sign:
                        end.do(Sign())
            senders = [end for end in self.ends if end.outbox]
            if not senders:
                return
            self.deliver(senders[0])
        raise AssertionError("the two never come to rest")

    def confirm(self, depth: int = 6) -> None:
        for end in self.ends:
            channel = end.channel
            end.do(FundingConfirmed(HEIGHT + 1, 7, output_script(channel), channel.funding_sat))
            end.do(events.Block(HEIGHT + depth))

    def ready(self, *args: object, **kwargs: object) -> "Pair":
        """A channel in which both can add HTLCs."""
        self.open(*args, **kwargs)
        self.settle()
        self.confirm()
        self.settle()
        assert [end.channel.phase for end in self.ends] == [Phase.NORMAL] * 2, self.transcript
        return self

    def disconnect(self) -> None:
        for end in self.ends:
            end.outbox.clear()
            if end.channel is not None:
                end.do(Disconnected())

    def reconnect(self) -> None:
        for end in self.ends:
            if end.channel is not None and end.channel.phase is not Phase.FORGOTTEN:
                end.do(Connected(self.features))

    def add(
        self, sender: End, amount_msat: int = 10_000_000, seed: int = 1, expiry: int = HEIGHT + 200
    ) -> int:
        """Offer an HTLC whose preimage is preimage(seed); its id."""
        effects = sender.do(Add(99, amount_msat, sha256(preimage(seed)), expiry, ONION))
        reply = next(effect for effect in effects if isinstance(effect, fx.Reply))
        assert reply.error is None, reply.error
        return reply.value

    def fulfill(self, receiver: End, htlc_id: int, seed: int = 1) -> None:
        receiver.do(Fulfill(htlc_id, preimage(seed)))

    def fail(self, receiver: End, htlc_id: int, reason: bytes = b"reason") -> None:
        receiver.do(Fail(htlc_id, reason))


def preimage(seed: int) -> bytes:
    return sha256(b"preimage %d" % seed)


def assert_agree(pair: Pair) -> None:
    """Both sides at rest hold the same commitments: mirrored figures, the same transactions by id."""
    alice, bob = pair.alice.channel, pair.bob.channel
    for ours, theirs in ((alice, bob), (bob, alice)):
        assert ours.remote_next is None
        assert not ours.unsigned_changes
        assert ours.local_commit.number == theirs.remote_commit.number
        assert ours.local_commit.txid == theirs.remote_commit.txid
        assert (ours.local_commit.local_msat, ours.local_commit.remote_msat) == (
            theirs.remote_commit.remote_msat,
            theirs.remote_commit.local_msat,
        )
        assert ours.local_view.local_msat == theirs.remote_view.remote_msat
        assert ours.local_view.offered_msat == theirs.remote_view.received_msat
        assert ours.feerates == theirs.feerates
        assert ours.next_offered_id == theirs.next_received_id
        assert {i: (h.amount_msat, h.payment_hash, h.state) for i, h in ours.offered.items()} == {
            i: (h.amount_msat, h.payment_hash, h.state) for i, h in theirs.received.items()
        }
