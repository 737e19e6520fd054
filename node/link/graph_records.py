"""The graph as it travels from backend to frontend: a sequence of records, each one change.

A record is a byte of kind, a u64 (capacity of a channel, or the short channel id of a removal), a u32 length and raw
bytes. The kinds are those of `node.link.graph_records.Kind`; a snapshot is just the shortest series of changes that
leads to the same graph.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

from node.errors import MalformedMessage

_RECORD = struct.Struct(">BQI")


class Kind(IntEnum):
    CHANNEL = 0  # number: capacity_sat; raw: channel_announcement
    UPDATE = 1  # raw: channel_update
    NODE = 2  # raw: node_announcement
    CHANNEL_GONE = 3  # number: short_channel_id
    NODE_GONE = 4  # raw: node id
    OWN = 5  # raw: an announcement of this node itself, which ignores peers' filters


def record(kind: Kind, number: int, raw: bytes) -> bytes:
    """One record."""
    return _RECORD.pack(kind, number, len(raw)) + raw


def split_records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, number, raw) of each record. Raises MalformedMessage where one is cut."""
    at, end, head = 0, len(data), _RECORD.size
    unpack = _RECORD.unpack_from
    while at < end:
        if at + head > end:
            raise MalformedMessage("a graph record is cut")
        kind, number, length = unpack(data, at)
        at += head
        if at + length > end:
            raise MalformedMessage("a graph record is cut")
        yield kind, number, data[at : at + length]
        at += length
