"""What can happen to a channel. Commands are imperative, facts are past tense; `command_id` returns in a Reply."""

from msgspec import Struct

from node.channel.closing_model import Feerates
from node.channel.parameters import Negotiated
from node.wire.codec import Message


class Received(Struct, frozen=True):
    """The peer sent a message of BOLT 2, announcement_signatures, or an error for this channel."""

    message: Message


class Connected(Struct, frozen=True):
    """A session with the peer is up and init messages are exchanged."""

    features: Negotiated


class Disconnected(Struct, frozen=True):
    """The session ended. Also the first event of every channel after a restart, unless its session is adopted."""


class Held(Struct, frozen=True):
    """The link to the frontend of a quiet channel's peer is gone: the peer may not notice."""


class Adopted(Struct, frozen=True):
    """The peer's session went on, with nothing lost: no channel_reestablish."""


class Add(Struct, frozen=True):
    """Offer an HTLC; the Reply's value is its id."""

    command_id: int
    amount_msat: int
    payment_hash: bytes
    cltv_expiry: int
    onion: bytes
    path_key: bytes | None = None


class Fulfill(Struct, frozen=True):
    """Settle a received HTLC; remembered until it is irrevocable, connected or not. Repeating it does nothing."""

    htlc_id: int
    preimage: bytes


class Fail(Struct, frozen=True):
    """Fail a received HTLC, unless it has a preimage. Repeating it does nothing."""

    htlc_id: int
    reason: bytes


class FailMalformed(Struct, frozen=True):
    htlc_id: int
    sha256_of_onion: bytes
    failure_code: int


class Taken(Struct, frozen=True):
    """The backend has durably decided what a received HTLC is: its onion is no longer needed."""

    htlc_id: int


class UpdateFee(Struct, frozen=True):
    """Ask for a new fee rate; nothing happens where it cannot be afforded or is not ours to ask."""

    feerate_per_kw: int


class Sign(Struct, frozen=True):
    """Commit to what is pending, if anything is and the last signature was acknowledged."""


class Shutdown(Struct, frozen=True):
    """Close with the peer's consent. While closing: pay this (higher) fee rate instead (option_simple_close)."""

    command_id: int
    script: bytes
    feerates: Feerates


class ForceClose(Struct, frozen=True):
    command_id: int
    reason: str


class Abandon(Struct, frozen=True):
    """Give up a channel that has no funding yet."""

    reason: str


class Funded(Struct, frozen=True):
    """The answer to Fund: a signed, unpublished transaction with only segwit inputs."""

    tx: bytes
    output_index: int


class FundingConfirmed(Struct, frozen=True):
    """The funding transaction is in a block: what its output really holds."""

    height: int
    tx_index: int
    script: bytes
    amount_sat: int


class FundingUnconfirmed(Struct, frozen=True):
    """A reorganisation took the funding transaction's block away."""


class FundingSpent(Struct, frozen=True):
    """The funding output is spent; again with a height when that confirms, with 0 when a reorganisation undoes it."""

    tx: bytes
    height: int = 0


class Restored(Struct, frozen=True):
    """The database is an older copy: until the peer shows that it knows no more, ours may be revoked."""


class Block(Struct, frozen=True):
    """The chain's newest height. Also the second event of every channel after a restart."""

    height: int


Event = (
    Received
    | Connected
    | Disconnected
    | Held
    | Adopted
    | Add
    | Fulfill
    | Fail
    | FailMalformed
    | Taken
    | UpdateFee
    | Sign
    | Shutdown
    | ForceClose
    | Abandon
    | Funded
    | FundingConfirmed
    | FundingUnconfirmed
    | FundingSpent
    | Restored
    | Block
)
