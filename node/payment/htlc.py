"""What every part of a payment names: an HTLC by channel, direction and id, and what is done to a received one."""

from msgspec import Struct

from node.crypto.failures import build_failure
from node.wire.bolt4 import Failure, encode_failure


class HtlcKey(Struct, frozen=True):
    """An HTLC's identity; never its hash and amount, which another HTLC may share."""

    channel_id: bytes
    offered: bool  # by us
    htlc_id: int


class SettleHtlc(Struct, frozen=True):
    """Claim a received HTLC. Repeating it does nothing."""

    key: HtlcKey
    preimage: bytes


class FailHtlc(Struct, frozen=True):
    """Fail a received HTLC with this return packet."""

    key: HtlcKey
    reason: bytes


def fail_htlc(key: HtlcKey, shared_secret: bytes, failure: Failure) -> FailHtlc:
    """Fail with a failure of our own, for the origin's eyes only."""
    return FailHtlc(key, build_failure(shared_secret, encode_failure(failure)))
