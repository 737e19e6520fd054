"""BOLT 7: gossip and its queries."""

from typing import Annotated

from node.wire.bolt2 import ChannelMessage
from node.wire.codec import Message, Record, message
from node.wire.fields import (
    U8,
    U16,
    U32,
    U64,
    Bytes3,
    Bytes32,
    ChainHash,
    Data,
    Point,
    Remainder,
    ShortChannelId,
    Signature,
    Size,
    Tlv,
)


class EncodedArray(Record, frozen=True):
    """An encoding byte, then the encoded values (query flags, timestamps)."""

    encoding_type: U8
    encoded: Remainder


@message(256)
class ChannelAnnouncement(Message, frozen=True):
    node_signature_1: Signature
    node_signature_2: Signature
    bitcoin_signature_1: Signature
    bitcoin_signature_2: Signature
    features: Data
    chain_hash: ChainHash
    short_channel_id: ShortChannelId
    node_id_1: Point
    node_id_2: Point
    bitcoin_key_1: Point
    bitcoin_key_2: Point


@message(257)
class NodeAnnouncement(Message, frozen=True):
    signature: Signature
    features: Data
    timestamp: U32
    node_id: Point
    rgb_color: Bytes3
    alias: Bytes32
    addresses: Data


@message(258)
class ChannelUpdate(Message, frozen=True):
    signature: Signature
    chain_hash: ChainHash
    short_channel_id: ShortChannelId
    timestamp: U32
    message_flags: U8
    channel_flags: U8
    cltv_expiry_delta: U16
    htlc_minimum_msat: U64
    fee_base_msat: U32
    fee_proportional_millionths: U32
    htlc_maximum_msat: U64


@message(259)
class AnnouncementSignatures(ChannelMessage, frozen=True):
    short_channel_id: ShortChannelId
    node_signature: Signature
    bitcoin_signature: Signature


@message(261)
class QueryShortChannelIds(Message, frozen=True):
    chain_hash: ChainHash
    encoded_short_ids: Data
    query_flags: Annotated[EncodedArray | None, Tlv(1)] = None


@message(262)
class ReplyShortChannelIdsEnd(Message, frozen=True):
    chain_hash: ChainHash
    full_information: U8


@message(263)
class QueryChannelRange(Message, frozen=True):
    chain_hash: ChainHash
    first_blocknum: U32
    number_of_blocks: U32
    query_option: Annotated[Size | None, Tlv(1)] = None


@message(264)
class ReplyChannelRange(Message, frozen=True):
    chain_hash: ChainHash
    first_blocknum: U32
    number_of_blocks: U32
    sync_complete: U8
    encoded_short_ids: Data
    timestamps: Annotated[EncodedArray | None, Tlv(1)] = None
    checksums: Annotated[Remainder | None, Tlv(3)] = None


@message(265)
class GossipTimestampFilter(Message, frozen=True):
    chain_hash: ChainHash
    first_timestamp: U32
    timestamp_range: U32
