"""The graph as it travels from backend to frontend: a sequence of records, each one change.

A record is a byte of kind, a u64 number, a u32 length and raw bytes; what number and bytes mean depends on the kind.
A snapshot is just the shortest series of changes that leads to the same graph.
"""

import struct
from collections.abc import Iterator
from typing import assert_never

from node.errors import MalformedMessage
from node.gossip.graph import ChannelAdded, ChannelRemoved, ChannelSpent, ChannelUpdated, Delta, NodeAnnounced

CHANNEL, UPDATE, NODE, SPENT, REMOVED = range(5)  # they travel: never reuse one

_RECORD = struct.Struct(">BQI")


def encode_delta(delta: Delta) -> bytes:
    """One change as a record."""
    match delta:
        case ChannelAdded(announcement, capacity_sat):
            return _RECORD.pack(CHANNEL, capacity_sat, len(announcement)) + announcement
        case ChannelUpdated(update):
            return _RECORD.pack(UPDATE, 0, len(update)) + update
        case NodeAnnounced(announcement):
            return _RECORD.pack(NODE, 0, len(announcement)) + announcement
        case ChannelSpent(short_channel_id, height):
            raw = b"" if height is None else height.to_bytes(4, "big")
            return _RECORD.pack(SPENT, short_channel_id, len(raw)) + raw
        case ChannelRemoved(short_channel_id):
            return _RECORD.pack(REMOVED, short_channel_id, 0)
        case _:
            assert_never(delta)


def decode_deltas(data: bytes) -> Iterator[Delta]:
    """The changes in `data`. Raises MalformedMessage where a record is cut or of an unknown kind."""
    at, end, head = 0, len(data), _RECORD.size
    unpack = _RECORD.unpack_from
    while at < end:
        if at + head > end:
            raise MalformedMessage("a graph record is cut")
        kind, number, length = unpack(data, at)
        at += head
        if at + length > end:
            raise MalformedMessage("a graph record is cut")
        raw = data[at : at + length]
        at += length
        if kind == UPDATE:
            yield ChannelUpdated(raw)
        elif kind == CHANNEL:
            yield ChannelAdded(raw, number)
        elif kind == NODE:
            yield NodeAnnounced(raw)
        elif kind == SPENT:
            yield ChannelSpent(number, int.from_bytes(raw, "big") if raw else None)
        elif kind == REMOVED:
            yield ChannelRemoved(number)
        else:
            raise MalformedMessage(f"a graph record of kind {kind}")
