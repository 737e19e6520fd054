"""The framing of the link: bytes in, frames out, whatever carries the bytes.

A frame is a u32 length, one byte of kind, and a body:

    CONTROL        a msgpack control message
    PEER           u64 session, u64 sequence, the raw peer message
    OFFER          u32 offer, u64 session, a raw announcement whose signatures the frontend has checked
    GRAPH          u64 sequence of the first record, then records (`node.link.graph_records`)
"""

import struct
from collections.abc import Iterator

import msgspec

from node.errors import MalformedMessage
from node.link.messages import Control, ToBackend, ToFrontend

CONTROL, PEER, OFFER, GRAPH = range(4)

MAX_FRAME = 1 << 20  # a graph chunk is at most half of it; a peer message 65,535 bytes
MAX_PEER_BODY = 16 + 65_535

_HEAD = struct.Struct(">IB")
_PEER = struct.Struct(">IBQQ")
_OFFER = struct.Struct(">IBIQ")
_SESSION_AND_SEQUENCE = struct.Struct(">QQ")
_OFFER_AND_SESSION = struct.Struct(">IQ")

_encoder = msgspec.msgpack.Encoder()
_to_backend: msgspec.msgpack.Decoder[ToBackend] = msgspec.msgpack.Decoder(ToBackend)
_to_frontend: msgspec.msgpack.Decoder[ToFrontend] = msgspec.msgpack.Decoder(ToFrontend)


def control(message: Control) -> bytes:
    """A control message as a frame."""
    body = _encoder.encode(message)
    return _HEAD.pack(len(body) + 1, CONTROL) + body


def peer(session: int, sequence: int, raw: bytes) -> bytes:
    """A peer message as a frame."""
    return _PEER.pack(len(raw) + 17, PEER, session, sequence) + raw


def offer(number: int, session: int, raw: bytes) -> bytes:
    """An announcement for the backend's verdict as a frame."""
    return _OFFER.pack(len(raw) + 13, OFFER, number, session) + raw


def graph(first_sequence: int, records: bytes) -> bytes:
    """A chunk of the graph as a frame."""
    return _HEAD.pack(len(records) + 9, GRAPH) + first_sequence.to_bytes(8, "big") + records


def split_peer(body: bytes) -> tuple[int, int, bytes]:
    """(session, sequence, raw) of a PEER frame's body."""
    if not 18 <= len(body) <= MAX_PEER_BODY:
        raise MalformedMessage(f"a peer frame of {len(body)} bytes")
    session, sequence = _SESSION_AND_SEQUENCE.unpack_from(body)
    return session, sequence, body[16:]


def split_offer(body: bytes) -> tuple[int, int, bytes]:
    """(offer, session, raw) of an OFFER frame's body."""
    if len(body) < 14:
        raise MalformedMessage("an offer frame is cut")
    number, session = _OFFER_AND_SESSION.unpack_from(body)
    return number, session, body[12:]


def split_graph(body: bytes) -> tuple[int, bytes]:
    """(sequence of the first record, records) of a GRAPH frame's body."""
    if len(body) < 8:
        raise MalformedMessage("a graph frame is cut")
    return int.from_bytes(body[:8], "big"), body[8:]


def decode_to_backend(body: bytes) -> ToBackend:
    """Raises MalformedMessage for what no frontend of ours would send."""
    try:
        return _to_backend.decode(body)
    except msgspec.MsgspecError as error:
        raise MalformedMessage(f"control message: {error}") from error


def decode_to_frontend(body: bytes) -> ToFrontend:
    """Raises MalformedMessage for what no backend of ours would send."""
    try:
        return _to_frontend.decode(body)
    except msgspec.MsgspecError as error:
        raise MalformedMessage(f"control message: {error}") from error


class FrameReader:
    """Cuts a byte stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The (kind, body) pairs that `data` completes. Raises MalformedMessage for a frame over MAX_FRAME.

        The iterator must be exhausted: it keeps what is left for the next call.
        """
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= 5:
            length, kind = _HEAD.unpack_from(buffer, at)
            if not 1 <= length <= MAX_FRAME:
                raise MalformedMessage(f"a frame of {length} bytes")
            following = at + 4 + length
            if following > end:
                break
            yield kind, buffer[at + 5 : following]
            at = following
        self._buffer = buffer[at:]
