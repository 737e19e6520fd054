"""What a channel remembers about its mutual close."""

from msgspec import Struct
from msgspec.structs import replace

from node.wire.bolt2 import ClosingComplete


class Feerates(Struct, frozen=True):
    """What a mutual close may cost, in satoshi per 1000 weight."""

    preferred_per_kw: int
    min_per_kw: int
    max_per_kw: int


class Closing(Struct, frozen=True):
    """From the first wish to close until the close is buried."""

    feerates: Feerates
    local_script: bytes
    remote_script: bytes = b""
    shutdown_sent: bool = False  # once sent, again after every reconnection
    shutdown_received: bool = False  # since the last reconnection
    started: bool = False  # the negotiation, since the last reconnection
    # legacy closing_signed
    sent_fee_sat: int | None = None
    sent_range_sat: tuple[int, int] | None = None
    received_fee_sat: int | None = None
    # option_simple_close: our closing_complete that lacks its closing_sig
    offer: ClosingComplete | None = None
    # every close that both have signed, oldest first; any of them may confirm
    txs: tuple[bytes, ...] = ()


def reconnected(closing: Closing) -> Closing:
    """BOLT 2: the negotiation starts anew with the next connection."""
    return replace(
        closing,
        shutdown_received=False,
        started=False,
        sent_fee_sat=None,
        sent_range_sat=None,
        received_fee_sat=None,
        offer=None,
    )
