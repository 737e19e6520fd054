"""What a channel is: one frozen value that holds everything the backend must not forget.

An HTLC's life is one ordered enum (`State`): offered, signed into the receiver's commitment, acknowledged, signed
into the offerer's, and the same road out again. Which HTLCs a commitment holds is a range of states; signing or
revoking is one table that moves states on (`node.channel.updates`). The two `View`s are running sums over those
ranges, so that a limit is checked without a walk over all HTLCs.
"""

from enum import Enum, IntEnum

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from node.channel.closing_model import Closing
from node.channel.parameters import Negotiated, Party
from node.crypto.shachain import Shachain
from node.wire.features import ChannelType

SAT = 1_000  # millisatoshi


class Phase(Enum):
    """Where a channel is in its life. What is waited for is the name."""

    ACCEPT_CHANNEL = "accept_channel"  # opener: open_channel is sent
    FUNDING_TX = "funding_tx"  # opener: the wallet makes the transaction
    FUNDING_CREATED = "funding_created"  # accepter: accept_channel is sent
    FUNDING_SIGNED = "funding_signed"  # opener: funding_created is sent
    FUNDING_CONFIRMED = "funding_confirmed"  # both: depth, and channel_ready both ways
    NORMAL = "normal"
    SHUTTING_DOWN = "shutting_down"  # a shutdown is sent, received or wished for; HTLCs remain
    NEGOTIATING = "negotiating"  # both shutdowns exchanged, nothing left in the commitments
    CLOSING = "closing"  # a mutual close is signed by both; its depth is awaited
    FORCE_CLOSED = "force_closed"  # our commitment is published, or theirs was seen
    DATA_LOSS = "data_loss"  # the peer proved that our state is old: never publish ours
    CLOSED = "closed"  # a close is buried deeply enough: nothing can happen any more
    FORGOTTEN = "forgotten"  # failed before there was money in it: no row may remain


OPENING = frozenset({Phase.ACCEPT_CHANNEL, Phase.FUNDING_TX, Phase.FUNDING_CREATED, Phase.FUNDING_SIGNED})
UPDATING = frozenset({Phase.NORMAL, Phase.SHUTTING_DOWN})
STEADY = frozenset(
    {Phase.FUNDING_CONFIRMED, Phase.NORMAL}
)  # no exchange of messages is half way by its nature
ENDED = frozenset({Phase.FORCE_CLOSED, Phase.DATA_LOSS, Phase.CLOSED, Phase.FORGOTTEN})


class Link(Enum):
    """Whether the peer can be spoken to about this channel."""

    OFFLINE = "offline"
    HELD = "held"  # a frontend may still hold the peer's session: nothing can be said, nothing was undone
    SYNCING = "syncing"  # our channel_reestablish is sent, theirs is awaited
    ONLINE = "online"


class State(IntEnum):
    """How far an update has travelled. "Signed" and "revoked" are deeds of the one who did not send it last.

    The offerer adds (1 to 5), the receiver removes (6 to 10). The receiver's commitment holds the HTLC from
    ADD_SIGNED to REMOVE_REVOKED, the offerer's from ADD_ACK_SIGNED to REMOVE_SENT. A fee update walks from 1 to 5.
    """

    ADD_SENT = 1
    ADD_SIGNED = 2  # the offerer signed the receiver's commitment with it
    ADD_REVOKED = 3  # the receiver revoked the commitment before
    ADD_ACK_SIGNED = 4  # the receiver signed the offerer's commitment with it
    COMMITTED = 5  # the offerer revoked: there for good
    REMOVE_SENT = 6
    REMOVE_SIGNED = 7  # the receiver signed the offerer's commitment without it
    REMOVE_REVOKED = 8
    REMOVE_ACK_SIGNED = 9  # the offerer signed the receiver's commitment without it
    REMOVED = 10  # the receiver revoked: gone for good


class Fulfilled(Struct, frozen=True, array_like=True, tag=True):
    preimage: bytes


class Failed(Struct, frozen=True, array_like=True, tag=True):
    reason: bytes


class Malformed(Struct, frozen=True, array_like=True, tag=True):
    sha256_of_onion: bytes
    failure_code: int


Resolution = Fulfilled | Failed | Malformed


class Htlc(Struct, frozen=True, array_like=True):
    """One HTLC of either direction; its identity is (channel, direction, id) and nothing else."""

    id: int
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int
    state: State
    # offered: until the peer has acknowledged it; received: until the backend has taken it
    onion: bytes = b""
    path_key: bytes | None = None
    # offered: what the peer answered; received: what we decided, sent or not
    resolution: Resolution | None = None
    must_fail: bool = False  # received beyond our dust exposure, or after our shutdown


class View(Struct, frozen=True, array_like=True):
    """What the next commitment of one side will hold; "local" and "offered" are always ours."""

    local_msat: int = 0  # before fees and anchors, without the HTLCs
    remote_msat: int = 0
    offered_msat: int = 0
    offered_count: int = 0
    received_msat: int = 0
    received_count: int = 0
    trimmed_count: int = 0  # of the HTLCs above, those too small for an output of their own
    dust_msat: int = 0  # ... and all that would be, should the fee rate rise

    @property
    def total_msat(self) -> int:
        return self.local_msat + self.remote_msat + self.offered_msat + self.received_msat

    @property
    def untrimmed_count(self) -> int:
        return self.offered_count + self.received_count - self.trimmed_count


class RemoteCommit(Struct, frozen=True, array_like=True):
    """A commitment of the peer that we have signed; its HTLCs follow from their states."""

    number: int
    txid: bytes
    feerate_per_kw: int
    local_msat: int
    remote_msat: int


class LocalCommit(Struct, frozen=True, array_like=True):
    """Our commitment, with the peer's signatures."""

    number: int
    txid: bytes
    feerate_per_kw: int
    local_msat: int
    remote_msat: int
    signature: bytes
    htlc_signatures: bytes  # 64 bytes each, in output order


class Funding(Struct, frozen=True):
    txid: bytes
    output_index: int
    tx: bytes = b""  # the opener's, to publish again until it is confirmed
    first_height: int = 0  # when we began to wait for it
    height: int = 0  # of its block; 0 while unconfirmed
    tx_index: int = 0


class Opening(Struct, frozen=True):
    """What only the exchange before the funding needs."""

    push_msat: int
    feerate_per_kw: int
    command_id: int | None = None


class Spent(Struct, frozen=True):
    """The transaction that spent the funding output."""

    kind: str  # "mutual", "local", "remote", "remote_next", "revoked" or "unknown"
    tx: bytes
    height: int  # 0 while unconfirmed


class Channel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A channel. Changed only by `node.channel.step.step`, stored whole by `encode`."""

    channel_id: bytes  # the temporary one until the funding output is known
    local_node_id: bytes
    remote_node_id: bytes
    chain_hash: bytes
    is_opener: bool
    announce: bool
    type: ChannelType
    phase: Phase
    link: Link
    features: Negotiated
    local: Party
    remote: Party  # before accept_channel: a blank
    funding_sat: int
    minimum_depth: int
    alias: int
    shutdown_script: bytes  # where a mutual close pays us, unless Shutdown names another
    opening: Opening | None = None
    funding: Funding | None = None

    # the commitments; numbers count up from 0
    local_commit: LocalCommit | None = None
    remote_commit: RemoteCommit | None = None  # the newest that is not revoked
    remote_next: RemoteCommit | None = None  # signed by us, not yet acknowledged
    remote_point: bytes = b""  # of remote_commit
    remote_next_point: bytes = b""
    shachain: Shachain = Shachain()
    revoked_last: bool = False  # our last revoke_and_ack went out after our last commitment_signed

    # the updates
    offered: dict[int, Htlc] = {}
    received: dict[int, Htlc] = {}
    next_offered_id: int = 0
    next_received_id: int = 0
    feerates: dict[State, int] = {}  # State.COMMITTED, and those on their way
    local_view: View = View()
    remote_view: View = View()
    unsigned_changes: bool = False  # our next commitment_signed would change something

    # ready and announced
    ready_sent: bool = False
    ready_received: bool = False
    remote_alias: int | None = None
    remote_announcement: tuple[bytes, bytes] | None = None  # node signature, bitcoin signature
    announcement_sent: bool = False  # our announcement_signatures, since the last reconnection
    early_announcement: tuple[int, bytes, bytes] | None = (
        None  # theirs, before the channel was as deep for us
    )

    # the end
    closing: Closing | None = None
    unproven: bool = False  # of an older copy of the database: what we would publish may be revoked
    failure: str = ""  # why it failed; sent again as an error to a peer that comes back
    spent: Spent | None = None
    height: int = 0  # of the newest block that we were told of

    @property
    def total_msat(self) -> int:
        """All msat of the channel, wherever they are; no event may change it."""
        return self.local_view.total_msat

    @property
    def wants_to_sign(self) -> bool:
        """Whether Sign() would send a commitment_signed now."""
        return (
            self.unsigned_changes
            and self.remote_next is None
            and self.link is Link.ONLINE
            and self.phase in UPDATING
        )

    @property
    def is_usable(self) -> bool:
        """Whether HTLCs can be added now."""
        return self.phase is Phase.NORMAL and self.link is Link.ONLINE

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is uncommitted in either direction: a restart now needs no reestablish."""
        if self.link not in {Link.ONLINE, Link.HELD}:
            return False
        if self.phase in ENDED:
            return self.phase is not Phase.FORGOTTEN
        return (
            self.phase in STEADY
            and not self.unproven
            and self.remote_next is None
            and len(self.feerates) <= 1
            and all(htlc.state is State.COMMITTED for htlc in self.offered.values())
            and all(htlc.state is State.COMMITTED for htlc in self.received.values())
        )

    @property
    def short_channel_id(self) -> int | None:
        """The real one, once the funding transaction is confirmed."""
        if self.funding is None or not self.funding.height:
            return None
        return self.funding.height << 40 | self.funding.tx_index << 16 | self.funding.output_index

    @property
    def depth(self) -> int:
        """Confirmations of the funding transaction."""
        if self.funding is None or not self.funding.height:
            return 0
        return max(0, self.height - self.funding.height + 1)

    @property
    def local_msat(self) -> int:
        """Our balance once every update on its way has arrived, HTLCs apart."""
        return self.local_view.local_msat

    @property
    def remote_msat(self) -> int:
        return self.local_view.remote_msat


_ENCODER = Encoder()
_DECODER = Decoder(Channel)


def encode(channel: Channel) -> bytes:
    """The whole channel as one blob for the store."""
    return _ENCODER.encode(channel)


def decode(blob: bytes) -> Channel:
    return _DECODER.decode(blob)
