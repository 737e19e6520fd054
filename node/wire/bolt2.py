"""BOLT 2: opening, operating and closing channels."""

from typing import Annotated

from node.wire.codec import Message, Record, message
from node.wire.fields import (
    U8,
    U16,
    U32,
    U64,
    Bytes32,
    ChainHash,
    ChannelId,
    Data,
    OnionPacket,
    Point,
    Remainder,
    Sha256,
    ShortChannelId,
    Signature,
    Signatures,
    Tlv,
)


class FeeRange(Record, frozen=True):
    """The closing fees that the sender of closing_signed accepts."""

    min_fee_satoshis: U64
    max_fee_satoshis: U64


class NextFunding(Record, frozen=True):
    """A splice's or RBF's funding transaction, of channel_reestablish."""

    funding_txid: Sha256
    retransmit_flags: U8


class ChannelMessage(Message, frozen=True):
    """BOLT 2 messages of an existing channel."""

    channel_id: ChannelId


@message(32)
class OpenChannel(Message, frozen=True):
    chain_hash: ChainHash
    temporary_channel_id: Bytes32
    funding_satoshis: U64
    push_msat: U64
    dust_limit_satoshis: U64
    max_htlc_value_in_flight_msat: U64
    channel_reserve_satoshis: U64
    htlc_minimum_msat: U64
    feerate_per_kw: U32
    to_self_delay: U16
    max_accepted_htlcs: U16
    funding_pubkey: Point
    revocation_basepoint: Point
    payment_basepoint: Point
    delayed_payment_basepoint: Point
    htlc_basepoint: Point
    first_per_commitment_point: Point
    channel_flags: U8
    upfront_shutdown_script: Annotated[Remainder | None, Tlv(0)] = None
    channel_type: Annotated[Remainder | None, Tlv(1)] = None


@message(33)
class AcceptChannel(Message, frozen=True):
    temporary_channel_id: Bytes32
    dust_limit_satoshis: U64
    max_htlc_value_in_flight_msat: U64
    channel_reserve_satoshis: U64
    htlc_minimum_msat: U64
    minimum_depth: U32
    to_self_delay: U16
    max_accepted_htlcs: U16
    funding_pubkey: Point
    revocation_basepoint: Point
    payment_basepoint: Point
    delayed_payment_basepoint: Point
    htlc_basepoint: Point
    first_per_commitment_point: Point
    upfront_shutdown_script: Annotated[Remainder | None, Tlv(0)] = None
    channel_type: Annotated[Remainder | None, Tlv(1)] = None


@message(34)
class FundingCreated(Message, frozen=True):
    temporary_channel_id: Bytes32
    funding_txid: Sha256
    funding_output_index: U16
    signature: Signature


@message(35)
class FundingSigned(ChannelMessage, frozen=True):
    signature: Signature


@message(36)
class ChannelReady(ChannelMessage, frozen=True):
    second_per_commitment_point: Point
    short_channel_id: Annotated[ShortChannelId | None, Tlv(1)] = None


@message(38)
class Shutdown(ChannelMessage, frozen=True):
    scriptpubkey: Data


@message(39)
class ClosingSigned(ChannelMessage, frozen=True):
    fee_satoshis: U64
    signature: Signature
    fee_range: Annotated[FeeRange | None, Tlv(1)] = None


@message(40)
class ClosingComplete(ChannelMessage, frozen=True):
    closer_scriptpubkey: Data
    closee_scriptpubkey: Data
    fee_satoshis: U64
    locktime: U32
    closer_output_only: Annotated[Signature | None, Tlv(1)] = None
    closee_output_only: Annotated[Signature | None, Tlv(2)] = None
    closer_and_closee_outputs: Annotated[Signature | None, Tlv(3)] = None


@message(41)
class ClosingSig(ChannelMessage, frozen=True):
    closer_scriptpubkey: Data
    closee_scriptpubkey: Data
    fee_satoshis: U64
    locktime: U32
    closer_output_only: Annotated[Signature | None, Tlv(1)] = None
    closee_output_only: Annotated[Signature | None, Tlv(2)] = None
    closer_and_closee_outputs: Annotated[Signature | None, Tlv(3)] = None


@message(128)
class UpdateAddHtlc(ChannelMessage, frozen=True):
    id: U64
    amount_msat: U64
    payment_hash: Sha256
    cltv_expiry: U32
    onion_routing_packet: OnionPacket
    path_key: Annotated[Point | None, Tlv(0)] = None


@message(130)
class UpdateFulfillHtlc(ChannelMessage, frozen=True):
    id: U64
    payment_preimage: Bytes32


@message(131)
class UpdateFailHtlc(ChannelMessage, frozen=True):
    id: U64
    reason: Data


@message(135)
class UpdateFailMalformedHtlc(ChannelMessage, frozen=True):
    id: U64
    sha256_of_onion: Sha256
    failure_code: U16


@message(132)
class CommitmentSigned(ChannelMessage, frozen=True):
    signature: Signature
    htlc_signatures: Signatures


@message(133)
class RevokeAndAck(ChannelMessage, frozen=True):
    per_commitment_secret: Bytes32
    next_per_commitment_point: Point


@message(134)
class UpdateFee(ChannelMessage, frozen=True):
    feerate_per_kw: U32


@message(136)
class ChannelReestablish(ChannelMessage, frozen=True):
    next_commitment_number: U64
    next_revocation_number: U64
    your_last_per_commitment_secret: Bytes32
    my_current_per_commitment_point: Point
    next_funding: Annotated[NextFunding | None, Tlv(1)] = None
    my_current_funding_locked: Annotated[NextFunding | None, Tlv(5)] = None
