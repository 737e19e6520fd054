"""The backend's end of the link against frontends that are late, wrong or taken over."""

import asyncio
import datetime as dt
import random
from typing import NamedTuple

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from node.backend.links import FrontendLink
from node.backend.session import SessionState
from node.crypto.keys import public_key
from node.link import frames
from node.link import messages as m
from node.peer.handshake import Initiator, Responder
from node.runtime.certificates import Role, issue, new_authority, new_shared, read_certificate
from node.runtime.handshakes import Handshakes

NODE_SECRET, PEER_SECRET = b"\x11" * 32, b"\x22" * 32
NODE_ID, PEER_ID = public_key(NODE_SECRET), public_key(PEER_SECRET)
HELLO = m.Hello(m.PROTOCOL_MIN, m.PROTOCOL_MAX, "f1", "test")


class FakeRuntime:
    def __init__(self) -> None:
        self.random, self.now_s, self.tasks = random.Random(1), 1_000.0, []

    def monotonic(self) -> float:
        return self.now_s

    def entropy(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def spawn(self, work, name):
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    async def run_blocking(self, lane, work):
        return work()

    async def quiet(self) -> None:
        while self.tasks:
            await self.tasks.pop(0)


class Shown(NamedTuple):
    """A TLS connection, as far as it is asked for the other side's certificate."""

    certificate: bytes

    def getpeercert(self, *, binary_form: bool) -> bytes:
        assert binary_form
        return self.certificate


class FakeTransport:
    def __init__(self, certificate: bytes = b"") -> None:
        self.written, self.closed = b"", False
        self._shown = Shown(certificate) if certificate else None

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> Shown | None:
        return self._shown if name == "ssl_object" else None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True

    abort = close


class Office:
    """Writes down what the link reports."""

    def __init__(self) -> None:
        self.calls: list = []

    def has_room(self, frontend_id: str) -> bool:
        return True

    def __getattr__(self, name: str):
        return lambda *arguments: self.calls.append((name, *arguments))

    def named(self, name: str) -> list:
        return [call[1:] for call in self.calls if call[0] == name]


class Identity:
    epoch, node_id, chain_hash, features, graph_sequence, limits, dialling = (
        3,
        NODE_ID,
        bytes(32),
        b"\x80",
        9,
        m.Limits(),
        m.Dialling(socks="127.0.0.1:9050"),
    )
    leads = True

    def may_speak(self):
        return self.leads


class Bench:
    """One link, said hello to unless told otherwise."""

    def __init__(
        self,
        hello: m.Hello | None = HELLO,
        per_s: int = 100,
        *,
        certificate: bytes = b"",
        elsewhere: bool = False,
    ) -> None:
        self.runtime, self.office, self.transport = FakeRuntime(), Office(), FakeTransport(certificate)
        self.identity = Identity()
        self.handshakes = Handshakes(self.runtime, NODE_SECRET, per_s, elsewhere=elsewhere)
        self.link = FrontendLink(self.runtime, self.office, self.identity, self.handshakes)
        self.link.connection_made(self.transport)
        if hello is not None:
            self.tell(hello)

    def tell(self, *messages: m.Control) -> None:
        self.link.data_received(b"".join(map(frames.control, messages)))

    def told(self, kind: type) -> list:
        found = [
            frames.decode_to_frontend(body)
            for k, body in frames.FrameReader().receive(self.transport.written)
            if k == frames.CONTROL
        ]
        return [message for message in found if isinstance(message, kind)]

    async def peer_in(self, number: int = 1) -> Initiator:
        """A peer through its whole handshake."""
        peer = Initiator(PEER_SECRET, b"\x33" * 32, NODE_ID)
        self.tell(m.HandshakeStarted(number, "1.2.3.4:5", peer.act_one()))
        await self.runtime.quiet()
        self.tell(m.Act(number, peer.act_two(self.told(m.Act)[-1].act)))
        await self.runtime.quiet()
        return peer


@pytest.mark.parametrize("name", ["", "f\0", "f\n1"])
def test_a_name_that_no_log_or_database_takes_is_refused(name) -> None:
    bench = Bench(m.Hello(1, m.PROTOCOL_MAX, name, "test"))
    assert "needs a name" in bench.told(m.Rejected)[0].reason


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_a_number_that_no_session_has_is_malformed(number) -> None:
    bench = Bench()
    bench.tell(m.HandshakeStarted(number, "1.2.3.4:5", bytes(50)))
    assert bench.transport.closed


def test_a_frontend_is_welcomed_with_the_epoch_and_the_limits() -> None:
    (welcome,) = Bench().told(m.Welcome)

    assert (welcome.protocol, welcome.epoch, welcome.node_id, welcome.graph_sequence) == (2, 3, NODE_ID, 9)


def test_a_frontend_that_could_leak_is_not_welcomed_where_tor_is_all() -> None:
    def answers(*capabilities: str) -> tuple[list, list]:
        bench = Bench(None)
        bench.identity.dialling = m.Dialling(socks="127.0.0.1:9050", only=True)
        bench.tell(msgspec.structs.replace(HELLO, capabilities=capabilities))
        return bench.told(m.Welcome), bench.told(m.Rejected)

    (welcome,), _ = answers("onion", m.PROXIES)
    assert welcome.dialling.only
    welcomes, (rejected,) = answers("ipv4", "ipv6", m.DRAINS)
    assert not welcomes
    assert "tor.only" in rejected.reason


def test_a_backend_that_does_not_lead_gets_no_byte_out_and_lets_its_frontends_go() -> None:
    bench = Bench()
    before = len(bench.transport.written)
    bench.identity.leads = False

    bench.tell(m.Beat(7))

    assert len(bench.transport.written) == before
    assert bench.transport.closed


def test_a_frontend_that_comes_to_a_backend_that_does_not_lead_is_not_welcomed() -> None:
    bench = Bench(hello=None)
    bench.identity.leads = False

    bench.tell(HELLO)

    assert not bench.told(m.Welcome)
    assert bench.told(m.Rejected) == [m.Rejected("this backend does not lead at the moment")]
    assert bench.transport.closed


@pytest.mark.parametrize(("lowest", "highest"), [(99, 100), (0, 0)], ids=["future", "past"])
def test_a_frontend_of_another_protocol_hears_why_and_is_let_go(lowest, highest) -> None:
    bench = Bench(m.Hello(lowest, highest, "f1", "another"))

    (rejected,) = bench.told(m.Rejected)
    ours = f"{m.PROTOCOL_MIN}-{m.PROTOCOL_MAX}"
    assert rejected.reason == f"link protocol {lowest}-{highest}, we speak {ours}"
    assert bench.transport.closed
    assert not bench.office.calls


def test_a_backend_whose_term_is_over_says_so() -> None:
    bench = Bench(m.Hello(1, 1, "f1", "test", highest_epoch=4))

    assert "epoch 3 is over" in bench.told(m.Rejected)[0].reason


@pytest.mark.parametrize("first", [m.SessionReady(1, b"", ""), m.GraphWanted(-1), m.Beat(1)])
def test_nothing_comes_before_hello(first: m.Control) -> None:
    bench = Bench(hello=None)
    bench.tell(first)

    assert bench.transport.closed
    assert not bench.office.calls


def test_hello_comes_once() -> None:
    bench = Bench()
    bench.tell(HELLO)

    assert bench.transport.closed


async def test_a_handshake_ends_with_keys_that_fit_the_peers() -> None:
    bench = Bench()
    peer = await bench.peer_in()
    (established,) = bench.told(m.Established)

    assert established.node_id == PEER_ID
    assert (established.send_key, established.receive_key) == (peer.result.receive_key, peer.result.send_key)
    assert bench.office.named("established")


async def test_a_session_speaks_for_nobody_before_its_handshake_is_through() -> None:
    """A frontend that is taken over can't have a message taken for a peer's that never shook hands through it."""
    bench = Bench()
    peer = Initiator(PEER_SECRET, b"\x33" * 32, NODE_ID)
    bench.tell(m.HandshakeStarted(1, "1.2.3.4:5", peer.act_one()))
    await bench.runtime.quiet()
    bench.tell(m.SessionReady(1, b"\x00\x10", "1.2.3.4:5"), m.SessionReady(2, b"\x00\x10", ""))
    bench.link.data_received(frames.peer(1, 1, b"\x00\x20") + frames.peer(2, 1, b"\x00\x20"))

    assert not bench.office.named("ready")
    assert not bench.office.named("message")


async def test_acts_out_of_turn_end_the_session_and_nothing_else() -> None:
    bench = Bench()
    peer = Initiator(PEER_SECRET, b"\x33" * 32, NODE_ID)
    bench.tell(
        m.HandshakeStarted(1, "a", peer.act_one()),
        m.Act(1, bytes(66)),
        m.Act(1, bytes(66)),
        m.Act(7, bytes(66)),
    )
    await bench.runtime.quiet()
    bench.tell(m.Act(1, bytes(66)))
    await bench.runtime.quiet()

    assert not bench.office.named("established")
    assert not bench.transport.closed
    assert not bench.link.sessions


async def test_an_act_that_does_not_verify_is_refused_by_its_cause() -> None:
    bench = Bench()
    bench.tell(m.HandshakeStarted(1, "a", b"\x00" + PEER_ID + bytes(16)))
    await bench.runtime.quiet()

    assert bench.told(m.HandshakeRefused) == [m.HandshakeRefused(1, "bad_mac")]


async def test_strangers_handshakes_have_a_rate() -> None:
    bench = Bench(per_s=2)
    for number in range(5):
        bench.tell(m.HandshakeStarted(number, "a", Initiator(PEER_SECRET, b"\x33" * 32, NODE_ID).act_one()))
    await bench.runtime.quiet()
    assert [refused.cause for refused in bench.told(m.HandshakeRefused)] == ["busy"] * 3

    bench.runtime.now_s += 1
    await bench.peer_in(9)
    assert bench.office.named("established")


async def test_a_dial_runs_the_other_role() -> None:
    bench = Bench()
    peer = Responder(PEER_SECRET, b"\x44" * 32)
    initiator = Initiator(NODE_SECRET, b"\x55" * 32, PEER_ID)
    bench.link.dials[5] = initiator
    bench.tell(m.Act(1, peer.act_one(initiator.act_one()), dial=5))
    await bench.runtime.quiet()
    (established,) = bench.told(m.Established)
    peer.act_three(established.act)

    assert established.node_id == PEER_ID
    assert peer.result.remote_static == NODE_ID
    bench.tell(m.Act(2, bytes(50), dial=5))  # a dial is answered once
    assert bench.told(m.HandshakeRefused) == [m.HandshakeRefused(2, "unknown dial")]


async def test_messages_are_numbered_acknowledged_and_never_taken_twice() -> None:
    bench = Bench()
    await bench.peer_in()
    bench.tell(m.SessionReady(1, b"\x00\x10", "a"))
    bench.link.data_received(
        frames.peer(1, 1, b"one") + frames.peer(1, 2, b"two") + frames.peer(1, 2, b"two")
    )
    assert [raw for _, raw in bench.office.named("message")] == [b"one", b"two"]
    assert not bench.told(m.Acks)

    bench.link.seal_acks()
    bench.link.flush_acks()
    assert bench.told(m.Acks) == [m.Acks(((1, 2),))]


async def test_a_gap_ends_the_link() -> None:
    bench = Bench()
    await bench.peer_in()
    bench.tell(m.SessionReady(1, b"\x00\x10", "a"))
    bench.link.data_received(frames.peer(1, 2, b"two"))

    assert bench.transport.closed


@pytest.mark.parametrize("protocol", [1, 2])
async def test_sessions_end_with_their_link_unless_the_frontend_can_hold_them(protocol: int) -> None:
    bench = Bench(m.Hello(1, protocol, "f1", "test"))
    await bench.peer_in()
    bench.tell(m.SessionReady(1, b"\x00\x10", "a"))
    (session,) = bench.link.sessions.values()
    bench.link.connection_lost(None)

    assert session.state is SessionState.ENDED
    ended, lost = [(session, "link lost")], [(session,)]
    assert (bench.office.named("ended"), bench.office.named("lost")) == ((ended, []), ([], lost))[
        protocol - 1
    ]


async def test_a_peer_that_is_still_shaking_hands_is_not_held() -> None:
    bench = Bench()
    await bench.peer_in()
    (session,) = bench.link.sessions.values()
    bench.link.connection_lost(None)

    assert session.state is SessionState.ENDED
    assert not bench.office.named("lost")


def held(number: int, received: int = 0) -> m.HeldSession:
    return m.HeldSession(number, PEER_ID, b"\x00\x10", "1.2.3.4:5", 3, 1, received, age_s=9.0)


def test_each_session_that_is_presented_is_adopted_or_closed() -> None:
    bench = Bench()
    bench.office.adopt = lambda session, held: (
        "not held" if held.received else session.resume(received=2, decided=0)
    )
    bench.tell(m.Present((held(5), held(6, received=1))), m.Present((held(7),), last=True))

    assert bench.told(m.Adopted) == [m.Adopted(((5, 2),)), m.Adopted(((7, 2),))]
    assert bench.told(m.CloseSession) == [m.CloseSession(6, "not held")]
    assert bench.office.named("presented") == [(bench.link,)]
    assert list(bench.link.sessions) == [5, 7]

    bench.link.data_received(frames.peer(5, 3, b"three") + frames.peer(6, 3, b"three"))
    assert [raw for _, raw in bench.office.named("message")] == [b"three"]


def test_a_session_is_presented_once() -> None:
    bench = Bench()
    bench.office.adopt = lambda session, _: session.resume(received=2, decided=0)
    bench.tell(m.Present((held(5),), last=True))
    bench.tell(m.Present((held(5),), last=True))

    assert bench.transport.closed


def test_a_frontend_of_a_release_before_presents_nothing_and_is_told_nothing_that_it_does_not_know() -> None:
    bench = Bench(m.Hello(1, 1, "f1", "test"))
    assert bench.told(m.Welcome)[0].protocol == 1
    assert bench.office.named("presented") == [(bench.link,)]
    bench.link.leave(returns=True)
    assert not bench.told(m.Leaving)

    bench.tell(m.Present((held(5),), last=True))
    assert bench.transport.closed


def test_nothing_is_obeyed_that_comes_after_a_link_was_replaced() -> None:
    bench = Bench()
    bench.link.let_go()
    bench.tell(m.GraphWanted(-1))

    assert not bench.office.named("graph_wanted")


async def test_a_silent_frontend_is_let_go_and_a_stuck_session_too() -> None:
    bench = Bench()
    bench.tell(m.HandshakeStarted(1, "a", Initiator(PEER_SECRET, b"\x33" * 32, NODE_ID).act_one()))
    await bench.runtime.quiet()
    for _ in range(90):
        bench.runtime.now_s += 1
        bench.tell(m.Beat(1))
        bench.link.beat()
    assert not bench.link.sessions
    assert not bench.transport.closed

    for _ in range(4):
        assert not bench.transport.closed
        bench.runtime.now_s += 1
        bench.link.beat()
    assert bench.transport.closed, "within 5 s"


def test_a_backend_that_stood_still_itself_does_not_take_that_for_silence() -> None:
    bench = Bench()
    bench.runtime.now_s += 60
    bench.link.beat()  # before what has come in meanwhile was read
    assert not bench.transport.closed
    bench.tell(m.Beat(1))
    for _ in range(4):
        assert not bench.transport.closed
        bench.runtime.now_s += 1
        bench.link.beat()
    assert bench.transport.closed


CONTROLS = st.one_of(
    st.builds(m.HandshakeStarted, st.integers(0, 5), st.text(max_size=9), st.binary(max_size=70)),
    st.builds(m.Act, st.integers(0, 5), st.binary(max_size=70), st.none() | st.integers(0, 3)),
    st.builds(m.SessionReady, st.integers(0, 5), st.binary(max_size=20), st.text(max_size=9)),
    st.builds(m.SessionEnded, st.integers(0, 5), st.text(max_size=9)),
    st.builds(m.DialFailed, st.integers(0, 3), st.text(max_size=9)),
    st.builds(m.Acks, st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=4).map(tuple)),
    st.builds(m.GraphWanted, st.integers(-3, 9)),
    st.builds(m.Present, st.lists(st.integers(0, 5).map(held), max_size=3).map(tuple)),
    st.builds(m.Beat, st.integers(0, 9), st.integers(0, 9)),
)
FRAMES = st.one_of(
    CONTROLS.map(frames.control),
    st.builds(frames.peer, st.integers(0, 5), st.integers(0, 9), st.binary(max_size=40)),
    st.builds(frames.offer, st.integers(0, 5), st.integers(0, 5), st.binary(max_size=40)),
    st.builds(frames.graph, st.integers(0, 5), st.binary(max_size=40)),
    st.binary(max_size=30),
)


@given(st.lists(FRAMES, max_size=15))
@settings(max_examples=150)
def test_whatever_a_frontend_sends_nothing_is_raised(chunks: list[bytes]) -> None:
    async def run() -> None:
        bench = Bench()
        for chunk in chunks:
            if not bench.transport.closed:
                bench.link.data_received(chunk)
                await bench.runtime.quiet()
        bench.link.beat()
        bench.link.flush_acks()
        assert not bench.office.named("established")

    asyncio.run(run())


# members and their certificates


def certificate(name: str, role: Role) -> bytes:
    now = dt.datetime.now(dt.UTC)
    pem = issue(new_authority(now, 1), name, role, now, 1).certificate
    return read_certificate(pem, name).public_bytes(Encoding.DER)


def test_a_frontend_goes_by_the_name_in_its_certificate() -> None:
    shown = certificate("f1", Role.FRONTEND)

    assert Bench(m.Hello(1, 1, "f1", "test"), certificate=shown).told(m.Welcome)
    other = Bench(m.Hello(1, 1, "f2", "test"), certificate=shown)
    assert other.told(m.Rejected)[0].reason == 'the certificate is that of "f1", not of "f2"'
    assert other.transport.closed
    assert not other.office.calls


def test_with_the_shared_certificate_it_has_the_name_that_it_says() -> None:
    pem = new_shared(dt.datetime.now(dt.UTC), 1).certificate
    shown = read_certificate(pem, "shared").public_bytes(Encoding.DER)

    assert Bench(m.Hello(1, 1, "any", "test"), certificate=shown).told(m.Welcome)


# handshakes in a frontend that has the key


def test_a_frontend_with_the_key_is_believed_where_the_configuration_says_so() -> None:
    bench = Bench(elsewhere=True)
    bench.tell(m.HandshakeDone(1, "1.2.3.4:5", PEER_ID), m.SessionReady(1, b"init", "1.2.3.4:5"))

    assert bench.told(m.Welcome)[0].frontend_handshakes
    ((session,),) = bench.office.named("established")
    assert session.node_id == PEER_ID
    assert bench.office.named("ready") == [(session, b"init")]


def test_and_nowhere_else() -> None:
    bench = Bench()
    bench.tell(m.HandshakeDone(1, "1.2.3.4:5", PEER_ID), m.SessionReady(1, b"init", "1.2.3.4:5"))

    assert not bench.told(m.Welcome)[0].frontend_handshakes
    assert bench.told(m.HandshakeRefused)
    assert not bench.office.named("established")
    assert not bench.office.named("ready")


def test_who_shook_hands_at_a_frontend_while_the_backend_stops_is_sent_away() -> None:
    bench = Bench(elsewhere=True)
    bench.handshakes.resting = True
    bench.tell(m.HandshakeDone(1, "1.2.3.4:5", PEER_ID), m.SessionReady(1, b"init", "1.2.3.4:5"))

    assert [each.cause for each in bench.told(m.HandshakeRefused)] == ["busy"]
    assert not bench.office.named("ready")


def test_what_is_no_node_id_ends_the_link() -> None:
    bench = Bench(elsewhere=True)
    bench.tell(m.HandshakeDone(1, "1.2.3.4:5", b"\x02" + b"\xff" * 32))

    assert bench.transport.closed
