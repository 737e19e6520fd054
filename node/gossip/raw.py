"""Gossip messages as bytes: their fields read at fixed offsets, nothing decoded that is not asked for.

A graph holds 170 thousand of these messages and hands them on unchanged, so they are never turned into values.
Only `check_size` looks at lengths: whatever enters the graph has passed through it once.
"""

import struct
from typing import NamedTuple

from google_crc32c import value as crc32c

from node.errors import MalformedMessage

CHANNEL_ANNOUNCEMENT = 256
NODE_ANNOUNCEMENT = 257
CHANNEL_UPDATE = 258

# Offsets count the two bytes of the type number.
SIGNATURES_END = 2 + 4 * 64  # channel_announcement: what its four signatures sign begins here
SIGNATURE_END = 2 + 64  # the other two: the same for their one signature
CHANNEL_UPDATE_SIZE = 138
CHANNEL_ANNOUNCEMENT_SIZE = 432  # without features
NODE_ANNOUNCEMENT_SIZE = 142  # without features and addresses
# Memory: BOLT 7 lets us refuse to relay what is longer than expected. The largest node_announcements seen carry
# some ten addresses.
MAX_CHANNEL_ANNOUNCEMENT_SIZE = 1_024
MAX_CHANNEL_UPDATE_SIZE = 512
MAX_NODE_ANNOUNCEMENT_SIZE = 2_048

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_CHANNEL = struct.Struct(">32sQ33s33s33s33s")
_UPDATE = struct.Struct(">32sQIBBHQIIQ")

DISABLE = 2  # channel_flags
DONT_FORWARD = 2  # message_flags


class ChannelFields(NamedTuple):
    """The end of a channel_announcement."""

    chain_hash: bytes
    short_channel_id: int
    node_id_1: bytes
    node_id_2: bytes
    bitcoin_key_1: bytes
    bitcoin_key_2: bytes


class UpdateFields(NamedTuple):
    """A channel_update without its signature."""

    chain_hash: bytes
    short_channel_id: int
    timestamp: int
    message_flags: int
    channel_flags: int
    cltv_expiry_delta: int
    htlc_minimum_msat: int
    fee_base_msat: int
    fee_proportional_millionths: int
    htlc_maximum_msat: int


def check_size(raw: bytes) -> int:
    """The type number of a gossip message that is long enough for its fields; MalformedMessage otherwise."""
    kind, size = int.from_bytes(raw[:2], "big"), len(raw)
    match kind:
        case 256:
            enough = (
                size >= CHANNEL_ANNOUNCEMENT_SIZE
                and size >= CHANNEL_ANNOUNCEMENT_SIZE + _U16.unpack_from(raw, SIGNATURES_END)[0]
            )
        case 257:
            enough = size >= NODE_ANNOUNCEMENT_SIZE and _node_fits(raw)
        case 258:
            enough = size >= CHANNEL_UPDATE_SIZE
        case _:
            raise MalformedMessage(f"message {kind} is not gossip")
    if not enough:
        raise MalformedMessage(f"gossip message {kind} ends after {size} bytes")
    return kind


def _node_fits(raw: bytes) -> bool:
    features: int = _U16.unpack_from(raw, SIGNATURE_END)[0]
    if len(raw) < NODE_ANNOUNCEMENT_SIZE + features:
        return False
    addresses: int = _U16.unpack_from(raw, 140 + features)[0]
    return len(raw) >= NODE_ANNOUNCEMENT_SIZE + features + addresses


def channel_fields(raw: bytes) -> ChannelFields:
    return ChannelFields._make(_CHANNEL.unpack_from(raw, 260 + _U16.unpack_from(raw, SIGNATURES_END)[0]))


def update_fields(raw: bytes) -> UpdateFields:
    return UpdateFields._make(_UPDATE.unpack_from(raw, SIGNATURE_END))


def update_channel(raw: bytes) -> bytes:
    """The short_channel_id of a channel_update as its eight bytes (safe as a key, whoever chose it)."""
    return raw[98:106]


def update_timestamp(raw: bytes) -> int:
    return int.from_bytes(raw[106:110], "big")


def update_direction(raw: bytes) -> int:
    """0 where node_id_1 sent this channel_update, 1 where node_id_2 did."""
    return raw[111] & 1


def update_checksum(raw: bytes) -> int:
    """BOLT 7, channel_update_checksums: CRC32C of the message without signature and timestamp."""
    checksum: int = crc32c(raw[66:106] + raw[110:])
    return checksum


def same_update(a: bytes, b: bytes) -> bool:
    """Whether two channel_updates say the same: only their signatures may differ."""
    return a[SIGNATURE_END:] == b[SIGNATURE_END:]


def node_timestamp(raw: bytes) -> int:
    timestamp: int = _U32.unpack_from(raw, 68 + _U16.unpack_from(raw, SIGNATURE_END)[0])[0]
    return timestamp


def node_id(raw: bytes) -> bytes:
    start = 72 + int.from_bytes(raw[66:68], "big")
    return raw[start : start + 33]


def node_features(raw: bytes) -> bytes:
    return raw[68 : 68 + int.from_bytes(raw[66:68], "big")]


def channel_features(raw: bytes) -> bytes:
    return raw[260 : 260 + int.from_bytes(raw[258:260], "big")]


def node_addresses(raw: bytes) -> bytes:
    """The address descriptors of a node_announcement, one after the other."""
    start = 142 + int.from_bytes(raw[66:68], "big")
    return raw[start : start + int.from_bytes(raw[start - 2 : start], "big")]


def block_height(short_channel_id: int) -> int:
    return short_channel_id >> 40
