"""Who is connected, and that a peer's mistakes stay its own."""

import asyncio

import pytest

from node.backend.checkpoints import Checkpoints
from node.backend.session import Session, SessionState
from node.backend.switchboard import Switchboard
from node.channel import events as ev
from node.crypto.keys import public_key
from node.errors import PeerFault, Refused
from node.link import frames
from node.link.messages import StartSync
from node.peer.handshake import Initiator
from node.wire import bolt1, bolt2
from node.wire.codec import decode, encode
from node.wire.features import Features

ALICE, BOB = b"\x02" + b"a" * 32, b"\x03" + b"b" * 32
INIT = encode(bolt1.Init(b"", b"\x80"))
READY = bolt2.ChannelReady(b"c" * 32, b"\x02" + b"p" * 32)


class FakeJournal:
    def wake(self) -> None: ...

    def write(self, sql, *parameters) -> None: ...

    def before_commit(self, hook) -> None:
        self.sealing = hook

    def after_commit(self, hook) -> None:
        self.hook = hook

    def send(self, output) -> None:
        output()


class FakeChannels:
    """One channel with Alice; what is applied to it is written down."""

    def __init__(self) -> None:
        self.events: list[ev.Event] = []
        self.record = object()
        self.fault: Exception | None = None

    def of_peer(self, node_id: bytes) -> list:
        return [self.record] if node_id == ALICE else []

    def find(self, node_id: bytes, channel_id: bytes):
        return self.record if (node_id, channel_id) == (ALICE, b"c" * 32) else None

    def apply(self, record, event) -> None:
        if self.fault is not None:
            raise self.fault
        self.events.append(event)

    def apply_all(self, records, event) -> None:
        self.events += [event for _ in records]


class FakeLink:
    """A frontend; keeps what would go to it."""

    def __init__(self, frontend_id: str) -> None:
        self.frontend_id, self.frames, self.ended = frontend_id, [], []
        self.sessions, self.dials, self.closed, self.version = {}, {}, False, "test"
        self.capabilities, self.draining, self.writable = ("ipv4", "ipv6"), False, True
        self.office = None

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)

    def end_session(self, session, cause: str, message: bytes = b"") -> None:
        self.ended.append((session, cause, message))
        if session.state is SessionState.READY:
            session.state = SessionState.ENDED
            self.office.ended(session, cause)

    def flush_acks(self) -> None: ...

    def let_go(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class FakeGossip:
    def __init__(self) -> None:
        self.syncs = True

    def peer_ready(self, session) -> bool:
        return self.syncs

    def link_down(self, link) -> None: ...


@pytest.fixture
def board():
    channels = FakeChannels()
    journal = FakeJournal()
    checkpoints = Checkpoints(journal, channels)
    board = Switchboard(None, journal, channels, checkpoints, Features(), max_strangers=2)
    board.gossip, board.opener, board.channels = FakeGossip(), None, channels
    return board


def session(node_id: bytes, link: FakeLink | None = None, number: int = 1) -> Session:
    made = Session(link or FakeLink("f1"), number, "1.2.3.4:5", 0.0, 1_000)
    made.node_id, made.state = node_id, SessionState.READY
    return made


def came_in(board, node_id: bytes, **options) -> Session:
    made = session(node_id, **options)
    made.link.office = board
    board.ready(made, INIT)
    return made


def test_channels_hear_of_a_peer_that_comes_and_goes(board) -> None:
    alice = came_in(board, ALICE)
    assert board.session_of(ALICE) is alice
    assert isinstance(board.channels.events.pop(), ev.Connected)

    board.ended(alice, "connection lost")
    assert board.session_of(ALICE) is None
    assert board.channels.events == [ev.Disconnected()]


def test_the_newest_session_of_a_peer_wins(board) -> None:
    old, new = came_in(board, ALICE), came_in(board, ALICE, number=2)

    assert board.session_of(ALICE) is new
    assert old.link.ended[0][1] == "replaced"
    assert [type(event) for event in board.channels.events] == [ev.Connected, ev.Disconnected, ev.Connected]
    board.message(old, encode(READY))
    assert len(board.channels.events) == 3  # a stale session carries nothing
    board.ended(old, "late news")
    assert board.session_of(ALICE) is new


def test_a_message_goes_to_the_channel_that_it_names(board) -> None:
    alice = came_in(board, ALICE)
    board.message(alice, encode(READY))

    assert board.channels.events[-1] == ev.Received(READY)


def test_a_channel_of_somebody_else_is_unknown(board) -> None:
    bob = came_in(board, BOB)
    board.message(bob, encode(READY))

    assert not board.channels.events
    (error,) = [
        decode(frames.split_peer(frame[5:])[2]) for frame in bob.link.frames if frame[4] == frames.PEER
    ]
    assert error == bolt1.Error(b"c" * 32, b"unknown channel")
    assert bob.state is SessionState.READY


@pytest.mark.parametrize(
    "raw", [b"\x00\x24" + b"c" * 10, b"\x00\x80", encode(READY) + b"\x02\x00", b"\x9c\x40"]
)
def test_undecodable_bytes_end_that_session_with_a_warning(board, raw: bytes) -> None:
    """Security: a known type that fails to decode is never ignored."""
    alice, bob = came_in(board, ALICE), came_in(board, BOB)
    board.message(alice, raw)

    ((_, cause, warning),) = alice.link.ended
    assert cause.startswith("undecodable")
    assert isinstance(decode(warning), bolt1.Warning)
    assert board.session_of(BOB) is bob


@pytest.mark.parametrize("fault", [PeerFault("no"), AssertionError("our own bug"), ValueError("another")])
def test_whatever_a_peers_bytes_bring_to_light_ends_its_session_only(board, fault: Exception) -> None:
    alice, bob = came_in(board, ALICE), came_in(board, BOB)
    board.channels.fault = fault
    board.message(alice, encode(READY))

    assert len(alice.link.ended) == 1
    assert board.session_of(BOB) is bob


def test_a_message_that_is_no_business_of_a_backend_ends_the_session(board) -> None:
    alice = came_in(board, ALICE)
    board.message(alice, encode(bolt1.Ping(1, b"")))

    assert "not for a backend" in alice.link.ended[0][1]


def test_an_error_for_all_channels_reaches_each_and_a_warning_none(board) -> None:
    alice = came_in(board, ALICE)
    board.channels.events.clear()
    board.message(alice, encode(bolt1.Warning(bolt1.ALL_CHANNELS, b"hm\n")))
    assert not board.channels.events
    error = bolt1.Error(bolt1.ALL_CHANNELS, b"out")
    board.message(alice, encode(error))
    assert board.channels.events == [ev.Received(error)]


def test_peers_without_channels_have_a_bounded_number_of_places(board) -> None:
    strangers = [came_in(board, bytes([2, number]) + bytes(31)) for number in range(4)]
    alice = came_in(board, ALICE)

    assert [len(s.link.ended) for s in (*strangers, alice)] == [1, 1, 0, 0, 0]
    assert strangers[0].link.ended[0][1] == "too many peers without channels"


def test_a_sync_is_asked_of_those_whom_the_graph_wants(board) -> None:
    alice = came_in(board, ALICE)
    assert frames.control(StartSync(1)) in alice.link.frames
    board.gossip.syncs = False
    assert not came_in(board, BOB).link.frames


def test_a_frontend_that_starts_anew_replaces_its_old_link(board) -> None:
    old, new = FakeLink("f1"), FakeLink("f1")
    board.link_up(old)
    board.link_up(new)
    assert old.closed
    board.link_down(old)
    assert board.links == {"f1": new}


async def test_a_dial_fails_at_once_without_frontends_and_with_the_frontends_cause(board) -> None:
    initiator = Initiator(b"\x11" * 32, b"\x12" * 32, public_key(b"\x13" * 32))
    with pytest.raises(Refused, match="no frontend"):
        await board.connect(BOB, "1.2.3.4:5", initiator)
    link = FakeLink("f1")
    board.link_up(link)
    dialling = asyncio.create_task(board.connect(BOB, "1.2.3.4:5", initiator))
    await asyncio.sleep(0)
    (dial,) = link.dials
    board.dial_failed(FakeLink("f2"), dial, "of another")
    board.dial_failed(link, dial, "refused")
    with pytest.raises(Refused, match="connection failed: refused"):
        await dialling
    assert not link.dials


async def test_a_dial_is_answered_by_whichever_session_of_the_peer_comes_first(board) -> None:
    initiator = Initiator(b"\x11" * 32, b"\x12" * 32, public_key(b"\x13" * 32))
    board.link_up(FakeLink("f1"))
    dialling = asyncio.create_task(board.connect(BOB, "1.2.3.4:5", initiator))
    await asyncio.sleep(0)
    bob = came_in(board, BOB)

    assert await dialling is bob


async def test_a_frontend_that_is_lost_takes_its_dials_with_it(board) -> None:
    initiator = Initiator(b"\x11" * 32, b"\x12" * 32, public_key(b"\x13" * 32))
    link = FakeLink("f1")
    board.link_up(link)
    dialling = asyncio.create_task(board.connect(BOB, "1.2.3.4:5", initiator))
    await asyncio.sleep(0)
    board.link_down(link)
    with pytest.raises(Refused, match="frontend lost"):
        await dialling
