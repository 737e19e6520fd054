"""BOLT 4 returning errors: a failure grows one layer at every hop back, and only the origin can take them off."""

import hmac
from collections.abc import Sequence

from node.crypto.hashes import hmac_sha256
from node.crypto.onionkeys import onion_key, xor_stream

# BOLT 4, erring node: message and padding together, so that the length tells nothing
PADDED_LENGTH = 256
# BOLT 4, origin node: always as many rounds as the longest route has hops, so that timing tells nothing
MAX_ROUTE_HOPS = 27

_HMAC_LENGTH = 32
_DUMMY_SECRETS = (bytes(32),) * MAX_ROUTE_HOPS


def build_failure(shared_secret: bytes, failure_message: bytes) -> bytes:
    """The return packet of the erring node, its own layer included."""
    padding = bytes(max(0, PADDED_LENGTH - len(failure_message)))
    body = b"".join(
        (
            len(failure_message).to_bytes(2, "big"),
            failure_message,
            len(padding).to_bytes(2, "big"),
            padding,
        )
    )
    return wrap_failure(shared_secret, hmac_sha256(onion_key(b"um", shared_secret), body) + body)


def wrap_failure(shared_secret: bytes, packet: bytes) -> bytes:
    """Add this hop's layer to a packet on its way back."""
    return xor_stream(onion_key(b"ammag", shared_secret), packet)


def unwrap_failure(shared_secrets: Sequence[bytes], packet: bytes) -> tuple[int, bytes] | None:
    """Which hop failed (0 is the first) and its message; None when no hop of the route vouches for the packet."""
    found = None
    for index, secret in enumerate((*shared_secrets, *_DUMMY_SECRETS)[:MAX_ROUTE_HOPS]):
        packet = wrap_failure(secret, packet)
        body = packet[_HMAC_LENGTH:]
        expected = hmac_sha256(onion_key(b"um", secret), body)
        genuine = hmac.compare_digest(expected, packet[:_HMAC_LENGTH])
        if genuine and found is None and index < len(shared_secrets):
            found = index, body[2 : 2 + int.from_bytes(body[:2], "big")]
    return found
