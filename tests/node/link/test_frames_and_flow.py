"""Framing, flow control and graph records: whole, byte by byte, hostile."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.gossip.graph import ChannelAdded, ChannelRemoved, ChannelSpent, ChannelUpdated, NodeAnnounced
from node.link import frames
from node.link.flow import ReceiveWindow, SendWindow
from node.link.graph_records import decode_deltas, encode_delta

STREAM = [
    frames.peer(1, 1, b"\x00\x80" + bytes(1450)),
    frames.offer(7, 1, b"\x01\x00" + bytes(430)),
    frames.graph(9, b"records"),
    frames.peer(1, 2, b"\x00\x84"),
]
DELTAS = st.one_of(
    st.builds(ChannelAdded, st.binary(max_size=500), st.integers(0, 2**64 - 1)),
    st.builds(ChannelUpdated, st.binary(max_size=200)),
    st.builds(NodeAnnounced, st.binary(max_size=200)),
    st.builds(ChannelSpent, st.integers(0, 2**64 - 1), st.none() | st.integers(0, 2**32 - 1)),
    st.builds(ChannelRemoved, st.integers(0, 2**64 - 1)),
)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_frames_arrive_however_the_bytes_are_cut(chunk: int) -> None:
    data, reader = b"".join(STREAM), frames.FrameReader()

    found = [frame for at in range(0, len(data), chunk) for frame in reader.receive(data[at : at + chunk])]

    assert [kind for kind, _ in found] == [frames.PEER, frames.OFFER, frames.GRAPH, frames.PEER]
    assert frames.split_peer(found[0][1]) == (1, 1, b"\x00\x80" + bytes(1450))
    assert frames.split_offer(found[1][1]) == (7, 1, b"\x01\x00" + bytes(430))
    assert frames.split_graph(found[2][1]) == (9, b"records")


@pytest.mark.parametrize("length", [0, frames.MAX_FRAME + 1, 2**32 - 1])
def test_a_length_that_no_frame_has_is_refused_before_anything_is_collected(length: int) -> None:
    with pytest.raises(MalformedMessage):
        list(frames.FrameReader().receive(length.to_bytes(4, "big") + b"\x01"))


@given(st.lists(st.binary(max_size=40)))
def test_hostile_bytes_are_frames_or_malformed(chunks: list[bytes]) -> None:
    reader = frames.FrameReader()
    try:
        for chunk in chunks:
            for _, body in reader.receive(chunk):
                frames.split_peer(body)
                frames.split_offer(body)
                frames.split_graph(body)
    except MalformedMessage:
        pass


@given(st.lists(st.integers(1, 1_000), max_size=60), st.data())
def test_a_window_is_exhausted_by_exactly_what_was_not_acknowledged(
    sizes: list[int], data: st.DataObject
) -> None:
    window = SendWindow(limit=5_000)
    unacked: dict[int, int] = {}
    for size in sizes:
        unacked[window.sent(size)] = size
        ack = data.draw(st.integers(0, window.sequence))
        window.acked(ack)
        unacked = {sequence: size for sequence, size in unacked.items() if sequence > ack}
        assert window.unacked_bytes == sum(unacked.values())
        assert window.exhausted == (window.unacked_bytes >= 5_000)


def test_an_acknowledgement_of_what_was_never_sent_is_malformed() -> None:
    window = SendWindow(limit=1)
    window.sent(1)
    with pytest.raises(MalformedMessage):
        window.acked(2)


def test_a_repeated_message_is_dropped_and_a_gap_is_malformed() -> None:
    window = ReceiveWindow()

    assert [window.receive(sequence) for sequence in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    with pytest.raises(MalformedMessage):
        window.receive(5)


@given(st.lists(DELTAS, max_size=20))
def test_graph_records_come_back_as_they_were(deltas: list) -> None:
    assert list(decode_deltas(b"".join(map(encode_delta, deltas)))) == deltas


@given(st.binary(max_size=200))
def test_hostile_graph_records_are_malformed_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        list(decode_deltas(data))
