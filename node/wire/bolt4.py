"""BOLT 4: what an onion's layers carry, and the failures that come back."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from node.errors import MalformedMessage
from node.wire.codec import Message, Record, TlvStream, Unknown, decode_as, encode, message
from node.wire.fields import (
    TU32,
    TU64,
    U16,
    U32,
    U64,
    Bytes32,
    Data,
    Point,
    Remainder,
    Sha256,
    ShortChannelId,
    Size,
    Tlv,
)

BADONION = 0x8000
PERM = 0x4000
NODE = 0x2000
UPDATE = 0x1000


class PaymentData(Record, frozen=True):
    payment_secret: Bytes32
    total_msat: TU64


class HopPayload(TlvStream, frozen=True, kw_only=True):
    """A hop's `payload`; keysend_preimage is bLIP 3's record."""

    amt_to_forward: Annotated[TU64 | None, Tlv(2)] = None
    outgoing_cltv_value: Annotated[TU32 | None, Tlv(4)] = None
    short_channel_id: Annotated[ShortChannelId | None, Tlv(6)] = None
    payment_data: Annotated[PaymentData | None, Tlv(8)] = None
    encrypted_recipient_data: Annotated[Remainder | None, Tlv(10)] = None
    current_path_key: Annotated[Point | None, Tlv(12)] = None
    payment_metadata: Annotated[Remainder | None, Tlv(16)] = None
    total_amount_msat: Annotated[TU64 | None, Tlv(18)] = None
    keysend_preimage: Annotated[Bytes32 | None, Tlv(5_482_373_484)] = None


@message(513)
class OnionMessage(Message, frozen=True):
    path_key: Point
    onion_message_packet: Data


class Failure(Message, frozen=True):
    """A failure message; its number is the failure code. It travels inside an onion, never as a peer message."""


FAILURES: dict[int, type[Failure]] = {}
F = TypeVar("F", bound=Failure)


def failure(code: int) -> Callable[[type[F]], type[F]]:
    def register(cls: type[F]) -> type[F]:
        assert code not in FAILURES
        cls.number = code
        FAILURES[code] = cls
        return cls

    return register


@failure(NODE | 2)
class TemporaryNodeFailure(Failure, frozen=True):
    pass


@failure(PERM | NODE | 2)
class PermanentNodeFailure(Failure, frozen=True):
    pass


@failure(PERM | NODE | 3)
class RequiredNodeFeatureMissing(Failure, frozen=True):
    pass


@failure(BADONION | PERM | 4)
class InvalidOnionVersion(Failure, frozen=True):
    sha256_of_onion: Sha256


@failure(BADONION | PERM | 5)
class InvalidOnionHmac(Failure, frozen=True):
    sha256_of_onion: Sha256


@failure(BADONION | PERM | 6)
class InvalidOnionKey(Failure, frozen=True):
    sha256_of_onion: Sha256


@failure(UPDATE | 7)
class TemporaryChannelFailure(Failure, frozen=True):
    channel_update: Data


@failure(PERM | 8)
class PermanentChannelFailure(Failure, frozen=True):
    pass


@failure(PERM | 9)
class RequiredChannelFeatureMissing(Failure, frozen=True):
    pass


@failure(PERM | 10)
class UnknownNextPeer(Failure, frozen=True):
    pass


@failure(UPDATE | 11)
class AmountBelowMinimum(Failure, frozen=True):
    htlc_msat: U64
    channel_update: Data


@failure(UPDATE | 12)
class FeeInsufficient(Failure, frozen=True):
    htlc_msat: U64
    channel_update: Data


@failure(UPDATE | 13)
class IncorrectCltvExpiry(Failure, frozen=True):
    cltv_expiry: U32
    channel_update: Data


@failure(UPDATE | 14)
class ExpiryTooSoon(Failure, frozen=True):
    channel_update: Data


@failure(PERM | 15)
class IncorrectOrUnknownPaymentDetails(Failure, frozen=True):
    htlc_msat: U64
    height: U32


@failure(18)
class FinalIncorrectCltvExpiry(Failure, frozen=True):
    cltv_expiry: U32


@failure(19)
class FinalIncorrectHtlcAmount(Failure, frozen=True):
    incoming_htlc_amt: U64


@failure(UPDATE | 20)
class ChannelDisabled(Failure, frozen=True):
    disabled_flags: U16
    channel_update: Data


@failure(21)
class ExpiryTooFar(Failure, frozen=True):
    pass


@failure(PERM | 22)
class InvalidOnionPayload(Failure, frozen=True):
    type: Size
    offset: U16


@failure(23)
class MppTimeout(Failure, frozen=True):
    pass


@failure(BADONION | PERM | 24)
class InvalidOnionBlinding(Failure, frozen=True):
    sha256_of_onion: Sha256


def encode_failure(value: Failure) -> bytes:
    """A failure message, code first."""
    return encode(value)


def decode_failure(data: bytes) -> Failure | Unknown:
    """The failure in `data`, as hostile as a stranger's bytes are; an unknown code as Unknown.

    Raises MalformedMessage for fewer than two bytes or a known code whose data is cut.
    """
    if len(data) < 2:
        raise MalformedMessage("a failure has at least the two bytes of its code")
    code = int.from_bytes(data[:2], "big")
    cls = FAILURES.get(code)
    return Unknown(code, data[2:]) if cls is None else decode_as(cls, data)
