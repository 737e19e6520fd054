"""BOLT 4 onions: built by the origin, one layer peeled at every hop."""

import hmac
from collections.abc import Sequence

from msgspec import Struct

from node.crypto.hashes import hmac_sha256, sha256
from node.crypto.keys import ecdh, is_valid_point, mul_secrets, public_key, tweak_mul_point
from node.crypto.onionkeys import onion_key, xor_stream
from node.errors import MalformedMessage, Refused

VERSION = 0
HOP_PAYLOADS_LENGTH = 1300
ONION_LENGTH = 1 + 33 + HOP_PAYLOADS_LENGTH + 32

INVALID_ONION_VERSION = 0xC004
INVALID_ONION_HMAC = 0xC005
INVALID_ONION_KEY = 0xC006
INVALID_ONION_PAYLOAD = 0x4016

_HMAC_LENGTH = 32
_NO_HMAC = bytes(_HMAC_LENGTH)
_PADDING = bytes(HOP_PAYLOADS_LENGTH)
# BOLT 4: a payload of no or one byte cannot be a TLV stream; both lengths are reserved
_MIN_PAYLOAD_LENGTH = 2


class BadOnion(MalformedMessage):
    """An onion that cannot be peeled.

    Without a shared secret the code has BADONION set and the answer is update_fail_malformed_htlc; with
    one, the origin's payload itself is wrong and the failure travels back encrypted like any other.
    """

    def __init__(self, failure_code: int, reason: str, shared_secret: bytes | None = None) -> None:
        super().__init__(reason)
        self.failure_code = failure_code
        self.shared_secret = shared_secret


class Peeled(Struct, frozen=True):
    """One hop's view of an onion; at the final hop there is no next one."""

    payload: bytes
    next_onion: bytes | None
    shared_secret: bytes


def peel(node_secret: bytes, onion: bytes, associated_data: bytes) -> Peeled:
    """Take off this node's layer; BadOnion when it is none, or has been tampered with."""
    if len(onion) != ONION_LENGTH or onion[0] != VERSION:
        raise BadOnion(INVALID_ONION_VERSION, "unknown onion version")
    point, hop_payloads, mac = onion[1:34], onion[34:-_HMAC_LENGTH], onion[-_HMAC_LENGTH:]
    try:
        shared_secret = ecdh(node_secret, point)
    except ValueError:
        raise BadOnion(INVALID_ONION_KEY, "onion key is not on the curve") from None
    expected = hmac_sha256(onion_key(b"mu", shared_secret), hop_payloads + associated_data)
    if not hmac.compare_digest(expected, mac):
        raise BadOnion(INVALID_ONION_HMAC, "onion HMAC does not match")
    clear = xor_stream(onion_key(b"rho", shared_secret), hop_payloads + _PADDING)
    start, end = _payload_span(clear, shared_secret)
    next_mac, next_payloads = clear[end : end + _HMAC_LENGTH], clear[end + _HMAC_LENGTH :]
    if next_mac == _NO_HMAC:
        return Peeled(clear[start:end], None, shared_secret)
    next_point = tweak_mul_point(point, sha256(point + shared_secret))
    next_onion = b"".join((b"\0", next_point, next_payloads[:HOP_PAYLOADS_LENGTH], next_mac))
    return Peeled(clear[start:end], next_onion, shared_secret)


def build(
    session_key: bytes, hops: Sequence[tuple[bytes, bytes]], associated_data: bytes
) -> tuple[bytes, tuple[bytes, ...]]:
    """The 1366-byte onion for hops of (node id, TLV payload), and the secret shared with each hop.

    Refused when a node id is no point, or the payloads do not fit.
    """
    if not hops:
        raise Refused("a route needs a hop")
    if not all(is_valid_point(node_id) for node_id, _ in hops):
        raise Refused("a hop's node id is not a point")
    frames = [_framed(payload) for _, payload in hops]
    if sum(map(len, frames)) + _HMAC_LENGTH * len(frames) > HOP_PAYLOADS_LENGTH:
        raise Refused("the route's payloads do not fit into an onion")
    secrets = _shared_secrets(session_key, [node_id for node_id, _ in hops])
    streams = [xor_stream(onion_key(b"rho", secret), 2 * _PADDING) for secret in secrets]
    filler = _filler(streams[:-1], frames)
    data, mac = xor_stream(onion_key(b"pad", session_key), _PADDING), _NO_HMAC
    for frame, stream, secret in zip(reversed(frames), reversed(streams), reversed(secrets), strict=True):
        data = _xor((frame + mac + data)[:HOP_PAYLOADS_LENGTH], stream[:HOP_PAYLOADS_LENGTH])
        if filler:  # the last hop comes first, and its tail is what the others will have pushed there
            data, filler = data[: -len(filler)] + filler, b""
        mac = hmac_sha256(onion_key(b"mu", secret), data + associated_data)
    return b"".join((b"\0", public_key(session_key), data, mac)), secrets


def _shared_secrets(session_key: bytes, node_ids: Sequence[bytes]) -> tuple[bytes, ...]:
    """BOLT 4, packet construction: ECDH with each hop, the ephemeral key blinded from one to the next."""
    ephemeral = session_key
    secrets: list[bytes] = []
    for position, node_id in enumerate(node_ids):
        if position:
            ephemeral = mul_secrets(ephemeral, sha256(public_key(ephemeral) + secrets[-1]))
        secrets.append(ecdh(ephemeral, node_id))
    return tuple(secrets)


def _filler(streams: Sequence[bytes], frames: Sequence[bytes]) -> bytes:
    """What the forwarding hops' peeling will have shifted into the tail that the last hop sees."""
    filler = b""
    for stream, frame in zip(streams, frames, strict=False):
        grown = filler + bytes(len(frame) + _HMAC_LENGTH)
        start = HOP_PAYLOADS_LENGTH - len(filler)
        filler = _xor(grown, stream[start : start + len(grown)])
    return filler


def _framed(payload: bytes) -> bytes:
    """The payload behind its bigsize length."""
    length = len(payload)
    return (bytes((length,)) if length < 0xFD else b"\xfd" + length.to_bytes(2, "big")) + payload


def _payload_span(clear: bytes, shared_secret: bytes) -> tuple[int, int]:
    """Where the first payload starts and ends; its HMAC must still lie inside what the hop received."""
    start, length = 1, clear[0]
    if length == 0xFD:
        start, length = 3, int.from_bytes(clear[1:3], "big")
        if length < 0xFD:
            raise BadOnion(INVALID_ONION_PAYLOAD, "payload length is not minimal", shared_secret)
    elif length > 0xFD:  # more than an onion can hold
        raise BadOnion(INVALID_ONION_PAYLOAD, "payload length is out of range", shared_secret)
    if not _MIN_PAYLOAD_LENGTH <= length <= HOP_PAYLOADS_LENGTH - start - _HMAC_LENGTH:
        raise BadOnion(INVALID_ONION_PAYLOAD, "payload length is out of range", shared_secret)
    return start, start + length


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")
