"""What a channel remembers about its mutual close."""

from msgspec import Struct


class Feerates(Struct, frozen=True):
    """What a mutual close may cost, in satoshi per 1000 weight."""

    preferred_per_kw: int
    min_per_kw: int
    max_per_kw: int


class Offer(Struct, frozen=True):
    """Our closing_complete (option_simple_close) that still lacks its closing_sig."""

    closer_script: bytes
    closee_script: bytes
    fee_sat: int
    locktime: int
    closer_only: bool  # which of the three forms we signed
    closee_only: bool
    both: bool


class Closing(Struct, frozen=True):
    """From the first wish to close until the close is buried."""

    feerates: Feerates
    local_script: bytes = b""
    remote_script: bytes = b""
    shutdown_sent: bool = False
    shutdown_received: bool = False
    # legacy closing_signed; a reconnection starts the negotiation anew
    sent_fee_sat: int | None = None
    sent_range_sat: tuple[int, int] | None = None
    received_fee_sat: int | None = None
    # option_simple_close
    offer: Offer | None = None
    # every close that both have signed, oldest first; any of them may confirm
    txs: tuple[bytes, ...] = ()
    published: bytes = b""  # the one that we publish
