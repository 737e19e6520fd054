"""What a step asks of the backend, as values. Within a step they are ordered: store, then send, publish, reply."""

from msgspec import Struct

from node.channel.model import Htlc
from node.wire.bolt7 import ChannelAnnouncement
from node.wire.codec import Message


class Identify(Struct, frozen=True):
    """The channel now has its permanent id. If that is taken: discard this step, send an error, forget the channel."""

    temporary_channel_id: bytes
    channel_id: bytes


class Store(Struct, frozen=True):
    """Make the channel durable before anything that follows leaves (once per turn is enough)."""


class StoreRevoked(Struct, frozen=True):
    """Keep what a penalty for this commitment of the peer needs (`node.channel.revoked`)."""

    commitment_number: int
    data: bytes


class Forget(Struct, frozen=True):
    """Delete the channel: it never held money."""


class Send(Struct, frozen=True):
    message: Message


class Disconnect(Struct, frozen=True):
    """End the session with the peer, after what was sent."""

    reason: str


class Fund(Struct, frozen=True):
    """Make, sign, but do not publish a transaction with this output; answer with Funded or Abandon."""

    script: bytes
    amount_sat: int


class ReleaseFunding(Struct, frozen=True):
    """The transaction of Funded will never be published: its inputs are free again."""

    tx: bytes


class WatchFunding(Struct, frozen=True):
    """Report when this output confirms (FundingConfirmed) and when it is spent (FundingSpent)."""

    txid: bytes
    output_index: int


class Publish(Struct, frozen=True):
    """Publish, and publish again at every block until it is confirmed or in conflict."""

    tx: bytes
    why: str


class Reply(Struct, frozen=True):
    """The answer to a command; error is None where it succeeded."""

    command_id: int
    error: str | None = None
    value: int | bytes | None = None


class Ready(Struct, frozen=True):
    """channel_ready went both ways: HTLCs may be added."""


class Announce(Struct, frozen=True):
    """The complete channel_announcement, for the graph and its peers."""

    message: ChannelAnnouncement


class HtlcReady(Struct, frozen=True):
    """A received HTLC is irrevocably committed: forward it, claim it, or fail it."""

    htlc: Htlc  # must_fail: answer with a temporary failure, reveal nothing


class HtlcFulfilled(Struct, frozen=True):
    """An HTLC that we offered has shown its preimage. Final, whatever happens to the channel."""

    htlc_id: int
    preimage: bytes


class HtlcFailed(Struct, frozen=True):
    """An HTLC that we offered is irrevocably removed without a preimage. Hostile bytes: see `unwrap_failure`."""

    htlc_id: int
    reason: bytes


class HtlcMalformed(Struct, frozen=True):
    """As HtlcFailed, where the peer could not read the onion."""

    htlc_id: int
    sha256_of_onion: bytes
    failure_code: int


class HtlcDropped(Struct, frozen=True):
    """An HTLC that we offered was never committed and is gone; its id will be used again."""

    htlc_id: int


class HtlcSettled(Struct, frozen=True):
    """A received HTLC is irrevocably removed: its records can go."""

    htlc_id: int
    fulfilled: bool


class ForceClosed(Struct, frozen=True):
    """The channel failed; what is on the chain decides from here on."""

    reason: str


class Closed(Struct, frozen=True):
    """The funding output is spent deeply enough: the channel is history."""


Effect = (
    Identify
    | Store
    | StoreRevoked
    | Forget
    | Send
    | Disconnect
    | Fund
    | ReleaseFunding
    | WatchFunding
    | Publish
    | Reply
    | Ready
    | Announce
    | HtlcReady
    | HtlcFulfilled
    | HtlcFailed
    | HtlcMalformed
    | HtlcDropped
    | HtlcSettled
    | ForceClosed
    | Closed
)
Effects = tuple[Effect, ...]
