"""BOLT 1: the messages of a session."""

from typing import Annotated

from node.wire.codec import Message, message
from node.wire.fields import U16, ChannelId, Data, Remainder, Tlv

ALL_CHANNELS = bytes(32)  # BOLT 1, error: an all-zero channel_id speaks of all channels


@message(16)
class Init(Message, frozen=True):
    globalfeatures: Data
    features: Data
    networks: Annotated[Remainder | None, Tlv(1)] = None
    remote_addr: Annotated[Remainder | None, Tlv(3)] = None


@message(17)
class Error(Message, frozen=True):
    channel_id: ChannelId
    data: Data


@message(1)
class Warning(Message, frozen=True):  # noqa: A001 - the BOLT's own name
    channel_id: ChannelId
    data: Data


@message(18)
class Ping(Message, frozen=True):
    num_pong_bytes: U16
    ignored: Data


@message(19)
class Pong(Message, frozen=True):
    ignored: Data
