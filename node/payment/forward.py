"""The tie between a received HTLC and the one offered downstream for it.

The record is stored in the transaction that adds the downstream HTLC. Its only way to money is the preimage:
learned, it is kept and settles upstream, whatever else happens before, after or again.
"""

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.crypto.failures import build_failure, wrap_failure
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc, fail_htlc
from node.wire.bolt4 import PermanentChannelFailure, TemporaryChannelFailure


class Forward(Struct, frozen=True, kw_only=True):
    """One forward; `shared_secret` is that of the received HTLC's onion."""

    upstream: HtlcKey
    downstream: HtlcKey | None = None  # None until the channel has given it an id
    shared_secret: bytes
    payment_hash: bytes
    amount_in_msat: int
    amount_out_msat: int
    cltv_expiry_in: int
    cltv_expiry_out: int
    preimage: bytes | None = None
    failed: bool = False

    @property
    def fee_msat(self) -> int:
        return self.amount_in_msat - self.amount_out_msat


class Offered(Struct, frozen=True):
    """The downstream channel took the HTLC."""

    downstream: HtlcKey


class NotOffered(Struct, frozen=True):
    """The downstream channel refused the HTLC, or dropped it before it was committed."""


class Fulfilled(Struct, frozen=True):
    """The preimage, from the peer or from the chain."""

    preimage: bytes


class Failed(Struct, frozen=True):
    """The downstream HTLC is irrevocably removed, with this return packet; none where the chain removed it."""

    reason: bytes


class Malformed(Struct, frozen=True):
    """As Failed, where the next node could not read the onion."""

    sha256_of_onion: bytes
    failure_code: int


Event = Offered | NotOffered | Fulfilled | Failed | Malformed
Effect = SettleHtlc | FailHtlc
Effects = tuple[Effect, ...]


def step(forward: Forward, event: Event) -> tuple[Forward, Effects]:
    """What a downstream event means upstream."""
    match event:
        case Offered(downstream=downstream):
            return replace(forward, downstream=downstream), ()
        case Fulfilled(preimage=preimage):
            # Also after a failure and when repeated: the channel knows what is still to be had.
            return replace(forward, preimage=preimage), (SettleHtlc(forward.upstream, preimage),)
        case Failed() | Malformed() | NotOffered():
            if forward.preimage is not None:
                return forward, ()
            return replace(forward, failed=True), (_failure(forward, event),)
        case _:
            assert_never(event)


def _failure(forward: Forward, event: Failed | Malformed | NotOffered) -> FailHtlc:
    match event:
        case Failed(reason=b""):
            return fail_htlc(forward.upstream, forward.shared_secret, PermanentChannelFailure())
        case Failed(reason=reason):
            return FailHtlc(forward.upstream, wrap_failure(forward.shared_secret, reason))
        case Malformed(sha256_of_onion=digest, failure_code=code):
            # BOLT 2, update_fail_malformed_htlc: from here back it is a failure like any other, in our name
            message = code.to_bytes(2, "big") + digest
            return FailHtlc(forward.upstream, build_failure(forward.shared_secret, message))
        case NotOffered():
            return fail_htlc(forward.upstream, forward.shared_secret, TemporaryChannelFailure(b""))
        case _:
            assert_never(event)
