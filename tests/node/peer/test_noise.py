"""BOLT 8 beyond the vectors: chunking, garbage, limits, and what must not leak."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.crypto.keys import public_key
from node.errors import MalformedMessage
from node.peer.connection import MAX_EARLY_BYTES, ActBuffer, NoiseConnection
from node.peer.handshake import HandshakeFailed, HandshakeResult, Initiator, Responder
from node.peer.transport import HEADER_SIZE, MAX_MESSAGE_SIZE, MAX_PACKET_SIZE, Transport

ALICE, BOB = bytes([0x11]) * 32, bytes([0x21]) * 32
RESULT = HandshakeResult(b"", bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)
MIRRORED = HandshakeResult(b"", RESULT.receive_key, RESULT.send_key, RESULT.chaining_key)


def initiator() -> Initiator:
    return Initiator(ALICE, bytes([0x12]) * 32, public_key(BOB))


def responder() -> Responder:
    return Responder(BOB, bytes([0x22]) * 32)


def transports() -> tuple[Transport, Transport]:
    return Transport(RESULT), Transport(MIRRORED)


def established() -> tuple[NoiseConnection, NoiseConnection]:
    alice, bob = NoiseConnection(initiator()), NoiseConnection(responder())
    bob.receive(alice.data_to_send())
    alice.receive(bob.data_to_send())
    bob.receive(alice.data_to_send())
    return alice, bob


def test_both_sides_learn_the_other_and_talk() -> None:
    alice, bob = established()
    assert alice.established
    assert alice.result is not None
    assert alice.result.remote_static == public_key(BOB)
    assert bob.result is not None
    assert bob.result.remote_static == public_key(ALICE)
    alice.send([b"one", b"", b"three"])
    bob.send([b"four"])
    assert bob.receive(alice.data_to_send()) == [b"one", b"", b"three"]
    assert alice.receive(bob.data_to_send()) == [b"four"]
    assert alice.data_to_send() == b""


def test_the_first_messages_may_come_with_the_last_act() -> None:
    alice, bob = NoiseConnection(initiator()), NoiseConnection(responder())
    bob.receive(alice.data_to_send())
    alice.receive(bob.data_to_send())
    alice.send([b"init"])
    assert bob.receive(alice.data_to_send()) == [b"init"]


def test_who_does_not_know_the_node_id_gets_nothing() -> None:
    stranger = Initiator(ALICE, bytes([0x12]) * 32, public_key(ALICE))
    bob = NoiseConnection(responder())
    with pytest.raises(HandshakeFailed, match="act 1: bad_mac"):
        bob.receive(stranger.act_one())
    assert bob.data_to_send() == b""


def test_a_node_id_that_is_no_point_is_refused() -> None:
    with pytest.raises(HandshakeFailed, match="act 1: bad_key"):
        Initiator(ALICE, BOB, b"\x02" + bytes(32)).act_one()


def test_an_act_of_another_size_is_refused() -> None:
    with pytest.raises(HandshakeFailed, match="bad_length"):
        responder().act_one(initiator().act_one() + b"\0")


def test_acts_out_of_order_are_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        responder().act_three(bytes(66))
    failed = responder()
    with pytest.raises(HandshakeFailed):
        failed.act_one(bytes(50))
    with pytest.raises(AssertionError):
        failed.act_three(bytes(66))


def test_no_repr_shows_a_secret() -> None:
    alice, _ = established()
    assert alice.result is not None
    shown = repr(alice.result)
    assert alice.result.remote_static.hex() in shown
    for key in (alice.result.send_key, alice.result.receive_key, alice.result.chaining_key):
        assert key.hex() not in shown
        assert repr(key) not in shown


def test_bytes_waiting_for_the_handshake_are_bounded() -> None:
    acts = ActBuffer()
    acts.receive(bytes(MAX_EARLY_BYTES))
    with pytest.raises(HandshakeFailed, match="too_much"):
        acts.receive(b"\0")


def test_the_largest_message() -> None:
    sender, receiver = transports()
    packet = sender.encrypt([bytes(MAX_MESSAGE_SIZE)])
    assert len(packet) == MAX_PACKET_SIZE
    assert receiver.receive(packet[:-1]) == []
    assert receiver.receive(packet[-1:]) == [bytes(MAX_MESSAGE_SIZE)]


def test_both_directions_rotate_on_their_own() -> None:
    sender, receiver = transports()
    assert receiver.receive(sender.encrypt([b"there"] * 1_250)) == [b"there"] * 1_250
    assert sender.receive(receiver.encrypt([b"back"] * 3)) == [b"back"] * 3
    assert receiver.receive(sender.encrypt([b"there"] * 250)) == [b"there"] * 250
    assert sender.receive(receiver.encrypt([b"back"] * 498)) == [b"back"] * 498


@pytest.mark.parametrize("position", [0, HEADER_SIZE - 1, HEADER_SIZE, -1])
def test_one_wrong_bit_ends_the_connection(position: int) -> None:
    sender, receiver = transports()
    packet = bytearray(sender.encrypt([b"update_fulfill_htlc"]))
    packet[position] ^= 1
    with pytest.raises(MalformedMessage, match="wrong MAC"):
        receiver.receive(bytes(packet))
    with pytest.raises(MalformedMessage, match="wrong MAC"):
        receiver.receive(sender.encrypt([b"and the next one"]))


def test_a_packet_sent_twice_ends_the_connection() -> None:
    sender, receiver = transports()
    packet = sender.encrypt([b"once"])
    assert receiver.receive(packet) == [b"once"]
    with pytest.raises(MalformedMessage):
        receiver.receive(packet)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_chunking_gives_the_same_messages(data: st.DataObject) -> None:
    sender, receiver = transports()
    bodies = data.draw(st.lists(st.binary(max_size=300), max_size=20)) * data.draw(st.sampled_from([1, 60]))
    stream = sender.encrypt(bodies)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    received = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
        received += receiver.receive(stream[start:end])
    assert received == bodies


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([Initiator, Responder]), st.booleans())
def test_garbage_only_ever_raises_malformed_message(
    chunks: list[bytes], role: type[Initiator | Responder], after_the_handshake: bool
) -> None:
    if after_the_handshake:
        alice, bob = established()
        peer = alice if role is Initiator else bob
    else:
        peer = NoiseConnection(initiator() if role is Initiator else responder())
    for chunk in chunks:
        try:
            assert peer.receive(chunk) == []
        except MalformedMessage:
            break


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 165), st.integers(1, 255))
def test_a_changed_handshake_never_establishes(position: int, change: int) -> None:
    alice, bob = NoiseConnection(initiator()), NoiseConnection(responder())

    def changed(act: bytes, first: int) -> bytes:
        if not first <= position < first + len(act):
            return act
        at = position - first
        return act[:at] + bytes([act[at] ^ change]) + act[at + 1 :]

    def handshake() -> None:
        for source, target, first in ((alice, bob, 0), (bob, alice, 50), (alice, bob, 100)):
            target.receive(changed(source.data_to_send(), first))

    with pytest.raises(HandshakeFailed):
        handshake()
    assert not bob.established


def test_an_idle_transport_is_small() -> None:
    packets = Transport(RESULT).encrypt([bytes(60_000)] * 2)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    idle = [Transport(MIRRORED) for _ in range(50)]
    for transport in idle:
        for start in range(0, len(packets), 1_000):
            transport.receive(packets[start : start + 1_000])
    each = (tracemalloc.get_traced_memory()[0] - before) / len(idle)
    tracemalloc.stop()
    assert each < 1_000
