"""A route as a payment uses it: HTLC amounts and expiries from the first channel to the last."""

from collections.abc import Sequence

from msgspec import Struct

from node.crypto import sphinx
from node.crypto.hashes import hmac_sha256
from node.gossip.routes import Hop, Route
from node.wire.bolt4 import HopPayload, PaymentData
from node.wire.codec import encode_tlvs

__all__ = [
    "FinalPayload",
    "Hop",
    "Onion",
    "Route",
    "amount_msat",
    "build_onion",
    "direction",
    "fee_msat",
    "session_key",
]


class FinalPayload(Struct, frozen=True, kw_only=True):
    """What only the payee reads."""

    total_msat: int
    payment_secret: bytes | None
    payment_metadata: bytes | None
    keysend_preimage: bytes | None


class Onion(Struct, frozen=True):
    packet: bytes
    shared_secrets: tuple[bytes, ...]


def amount_msat(route: Route) -> int:
    """What reaches the payee."""
    return route[-1].amount_msat


def fee_msat(route: Route) -> int:
    return route[0].amount_msat - route[-1].amount_msat


def direction(source: bytes, target: bytes) -> int:
    """BOLT 7, channel_update: 0 from the lesser node id to the greater, 1 back."""
    return int(source > target)


def session_key(entropy: bytes, part_id: int) -> bytes:
    """A secret per part; `entropy` is used for no other event."""
    return hmac_sha256(entropy, part_id.to_bytes(8, "big"))


def build_onion(
    route: Route, height: int, payment_hash: bytes, final: FinalPayload, session_key: bytes
) -> Onion:
    """Raises Refused where the payloads do not fit into an onion."""
    payloads = [*_forwarding(route, height), _final(route[-1], height, final)]
    hops = [(hop.node_id, encode_tlvs(payload)) for hop, payload in zip(route, payloads, strict=True)]
    return Onion(*sphinx.build(session_key, hops, payment_hash))


def _forwarding(route: Sequence[Hop], height: int) -> list[HopPayload]:
    """Every hop but the last reads of the HTLC that it is to offer."""
    return [
        HopPayload(
            amt_to_forward=after.amount_msat,
            outgoing_cltv_value=height + after.expiry_delta,
            short_channel_id=after.short_channel_id,
        )
        for after in route[1:]
    ]


def _final(last: Hop, height: int, final: FinalPayload) -> HopPayload:
    secret = final.payment_secret
    return HopPayload(
        amt_to_forward=last.amount_msat,
        outgoing_cltv_value=height + last.expiry_delta,
        payment_data=None if secret is None else PaymentData(secret, final.total_msat),
        payment_metadata=final.payment_metadata,
        keysend_preimage=final.keysend_preimage,
    )
