"""What a failed part teaches: who failed, what to avoid, what to believe of channels' balances.

Everything in a return packet is hostile: only the index, which the HMACs prove, and the code's flags are used.
"""

from msgspec import Struct

from node.crypto.failures import unwrap_failure
from node.errors import MalformedMessage
from node.payment.route import Route, direction
from node.wire.bolt4 import (
    BADONION,
    NODE,
    PERM,
    UPDATE,
    AmountBelowMinimum,
    ChannelDisabled,
    ExpiryTooSoon,
    Failure,
    FeeInsufficient,
    FinalIncorrectCltvExpiry,
    FinalIncorrectHtlcAmount,
    IncorrectCltvExpiry,
    TemporaryChannelFailure,
    decode_failure,
)
from node.wire.codec import Unknown

_CODE_SIZE = 2


class ChannelDirection(Struct, frozen=True):
    short_channel_id: int
    direction: int  # 0: sent by the lesser node id


class Observation(Struct, frozen=True):
    """That a channel passed an amount on, or could not."""

    channel: ChannelDirection
    amount_msat: int
    succeeded: bool


class Verdict(Struct, frozen=True, kw_only=True):
    """What to make of one failed part."""

    reason: str
    is_final: bool = False  # the payee itself refused for good
    node: bytes | None = None  # to be avoided
    channels: tuple[ChannelDirection, ...] = ()  # to be avoided
    suspect: ChannelDirection | None = None  # to be avoided when it fails once more
    observations: tuple[Observation, ...] = ()
    channel_update: bytes = b""  # as the failing node claims it, unchecked


def channels_of(route: Route, source: bytes) -> tuple[ChannelDirection, ...]:
    senders = (source, *(hop.node_id for hop in route[:-1]))
    return tuple(
        ChannelDirection(hop.short_channel_id, direction(sender, hop.node_id))
        for sender, hop in zip(senders, route, strict=True)
    )


def judge_success(route: Route, source: bytes) -> tuple[Observation, ...]:
    return _passed(route, channels_of(route, source), len(route))


def judge_local(route: Route, source: bytes, reason: str) -> Verdict:
    """Our own channel could not take the HTLC."""
    return Verdict(reason=reason, channels=channels_of(route, source)[:1])


def judge_malformed(route: Route, source: bytes, failure_code: int) -> Verdict:
    """Our own peer could not read the onion."""
    return Verdict(reason=f"malformed onion: {failure_code:#06x}", channels=channels_of(route, source)[:1])


def judge(route: Route, source: bytes, shared_secrets: tuple[bytes, ...], packet: bytes) -> Verdict:
    """Read a return packet."""
    channels = channels_of(route, source)
    found = unwrap_failure(shared_secrets, packet)
    if found is None or len(found[1]) < _CODE_SIZE:
        return Verdict(reason="unreadable failure", channels=channels[1:] or channels)
    index, message = found
    code = int.from_bytes(message[:_CODE_SIZE], "big")
    if index == len(route) - 1:
        return _judge_payee(route, channels, code, message)
    return _judge_hop(route, channels, index, message)


def _judge_payee(route: Route, channels: tuple[ChannelDirection, ...], code: int, message: bytes) -> Verdict:
    # BOLT 4, receiving failure codes: permanent from the final node ends the payment, all else may be tried again
    last = channels[-1]
    useless = bool(code & (BADONION | UPDATE))  # no payee means these
    tampered = code in (FinalIncorrectCltvExpiry.number, FinalIncorrectHtlcAmount.number)
    return Verdict(
        reason=f"payee: {_describe(message)}",
        is_final=bool(code & PERM) and not code & BADONION,
        channels=(last,) if useless else (),
        suspect=last if tampered else None,
        observations=_passed(route, channels, len(route)),
    )


def _judge_hop(route: Route, channels: tuple[ChannelDirection, ...], index: int, message: bytes) -> Verdict:
    code = int.from_bytes(message[:_CODE_SIZE], "big")
    blamed = channels[index + 1]
    transient = bool(code & UPDATE) and not code & (PERM | NODE | BADONION) and code != ChannelDisabled.number
    observations = _passed(route, channels, index + 1)
    if code == TemporaryChannelFailure.number:
        observations = (*observations, Observation(blamed, route[index + 1].amount_msat, succeeded=False))
    return Verdict(
        reason=f"hop {index + 1}: {_describe(message)}",
        node=route[index].node_id if code & NODE else None,
        channels=() if transient or code & NODE else (blamed,),
        suspect=blamed if transient else None,
        observations=observations,
        channel_update=_channel_update(message),
    )


def _passed(route: Route, channels: tuple[ChannelDirection, ...], count: int) -> tuple[Observation, ...]:
    """The HTLC got over the first `count` channels."""
    return tuple(
        Observation(channel, hop.amount_msat, succeeded=True)
        for channel, hop in zip(channels[:count], route, strict=False)
    )


def _describe(message: bytes) -> str:
    """The failure's name where we know it; never bytes that a stranger chose."""
    code = int.from_bytes(message[:_CODE_SIZE], "big")
    return f"{type(_read(message)).__name__} {code:#06x}"


def _channel_update(message: bytes) -> bytes:
    match _read(message):
        case (
            TemporaryChannelFailure(channel_update=update)
            | AmountBelowMinimum(channel_update=update)
            | FeeInsufficient(channel_update=update)
            | IncorrectCltvExpiry(channel_update=update)
            | ExpiryTooSoon(channel_update=update)
            | ChannelDisabled(channel_update=update)
        ):
            return update
        case _:
            return b""


def _read(message: bytes) -> Failure | Unknown:
    try:
        return decode_failure(message)
    except MalformedMessage:
        return Unknown(0, b"")
