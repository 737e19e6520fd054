"""The link's control messages: round trips, stored encodings, tolerance towards a newer release."""

import json
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import MalformedMessage
from node.link import frames
from node.link import messages as m

VECTORS = Path(__file__).parents[2] / "vectors"
# One file for each protocol: a release adds what it brings, and never changes what an older one wrote.
GOLDEN = [VECTORS / "link_golden.json", VECTORS / "link_golden_2.json"]
KEY, POINT = bytes(range(32)), b"\x02" + bytes(range(32))

# One of each message, every field set to something that is not its default.
SAMPLES: dict[str, m.Control] = {
    type(sample).__name__: sample
    for sample in (
        m.Hello(1, 2, "f1", "0.1.0", 7, ("ipv4", "tor"), ("1.2.3.4:9735",)),
        m.Welcome(1, 7, POINT, KEY, b"\x80", 42, m.Limits(session_window_bytes=1)),
        m.Rejected("epoch 1 is over"),
        m.Beat(3, 2),
        m.Status(1, 2, 3, 4, 5, 6),
        m.Acks(((1, 2), (3, 4))),
        m.HandshakeStarted(1, "1.2.3.4:5", bytes(50)),
        m.HandshakeDone(1, "1.2.3.4:5", POINT),
        m.Act(1, bytes(66), 9),
        m.Established(1, POINT, KEY, KEY, KEY, bytes(66)),
        m.HandshakeRefused(1, "bad_mac"),
        m.Dial(1, POINT, "[::1]:9735", bytes(50), 5.0),
        m.DialFailed(1, "refused"),
        m.SessionReady(1, b"\x00\x10", "1.2.3.4:5"),
        m.SessionEnded(1, "ping_flood"),
        m.CloseSession(1, "replaced", b"\x00\x01"),
        m.Present((m.HeldSession(1, POINT, b"\x00\x10", "1.2.3.4:5", 3, 2, 5, 1.5, False),), True),
        m.Adopted(((1, 2), (3, 4))),
        m.Leaving(False),
        m.StartSync(1),
        m.Drain(60.0),
        m.GraphWanted(-1),
        m.GraphCurrent(42),
        m.Verdicts(((1, 0), (2, 4))),
        m.Shares(3, 10, 100, 5.5, 1e6, 1, 2, 3, 4, 5),
    )
}
TO_BACKEND, TO_FRONTEND = ({cls.__name__ for cls in get_args(union)} for union in (m.ToBackend, m.ToFrontend))


def decoded(name: str, body: bytes) -> list[m.Control]:
    found: list[m.Control] = []
    if name in TO_BACKEND:
        found.append(frames.decode_to_backend(body))
    if name in TO_FRONTEND:
        found.append(frames.decode_to_frontend(body))
    return found


def test_there_is_a_sample_of_every_message() -> None:
    assert SAMPLES.keys() == TO_BACKEND | TO_FRONTEND


@pytest.mark.parametrize("name", SAMPLES)
def test_a_message_comes_back_as_it_was(name: str) -> None:
    ((kind, body),) = frames.FrameReader().receive(frames.control(SAMPLES[name]))

    assert kind == frames.CONTROL
    assert decoded(name, body)
    assert all(message == SAMPLES[name] for message in decoded(name, body))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_encoding_is_what_the_last_release_wrote(name: str) -> None:
    """A frontend one release behind reads this; if it has to change, the protocol number has to."""
    golden = {name: line for path in GOLDEN for name, line in json.loads(path.read_text()).items()}

    assert frames.control(SAMPLES[name]).hex() == golden[name]
    assert all(message == SAMPLES[name] for message in decoded(name, bytes.fromhex(golden[name])[5:]))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_field_of_a_newer_release_is_ignored(name: str) -> None:
    fields = msgspec.msgpack.decode(frames.control(SAMPLES[name])[5:])
    newer = msgspec.msgpack.encode({**fields, "invented_later": [1, 2]})

    assert all(message == SAMPLES[name] for message in decoded(name, newer))


@given(st.binary(max_size=200))
def test_hostile_control_bytes_are_malformed_and_nothing_else(body: bytes) -> None:
    for decode in (frames.decode_to_backend, frames.decode_to_frontend):
        try:
            decode(body)
        except MalformedMessage:
            continue
