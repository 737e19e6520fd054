"""A frontend that was taken over disturbs its own peers at most: the backend goes on, for everyone else."""

import asyncio
import struct

import pytest
from backend_bench import Bench, Frontend
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.backend.greeting import MAX_FRONTENDS
from node.backend.session import SessionState
from node.crypto.keys import public_key
from node.link import frames
from node.link import messages as lm
from node.peer.handshake import Initiator, Responder
from node.wire import bolt1, codec

RAW_INIT = codec.encode(bolt1.Init(b"", b""))


@pytest.fixture
async def bench(chain, tmp_path):
    made = await Bench(tmp_path / "node", chain).start()
    yield made
    assert not made.runtime.failures, "no task of the backend died"
    await made.drop()


def act_one(bench: Bench, secret: bytes = b"\1" * 32) -> Initiator:
    return Initiator(secret, bench.runtime.entropy(32), bench.backend.node_id)


@pytest.mark.parametrize("size", [2, 60, 260, 300, 431, 432])
async def test_an_announcement_cut_anywhere_ends_the_link_and_nothing_else(bench, size):
    evil, good = bench.frontend("evil"), bench.frontend("good")
    evil.raw(frames.offer(1, 1, b"\x01\x00" + bytes(size - 2)))
    await bench.settle()
    assert not bench.runtime.failures
    assert not good.wire.closed


async def test_an_announcement_with_keys_that_are_no_points_is_only_refused(bench):
    frontend = bench.frontend()
    raw = bytearray(b"\x01\x00" + bytes(430))
    raw[260:292] = bench.backend.chain_hash
    raw[292:300] = ((1 << 40) | 0).to_bytes(8, "big")  # the coinbase of block 1: there is such an output
    frontend.raw(frames.offer(1, 1, bytes(raw)))
    await bench.settle()
    assert not bench.runtime.failures
    assert frontend.last(lm.Verdicts).verdicts[0][1] != 0


@pytest.mark.parametrize("hello", [True, False], ids=["a member", "who says no hello"])
@pytest.mark.parametrize("length", [0, frames.MAX_FRAME + 1, 2**32 - 1])
async def test_a_frame_longer_than_any_ends_the_link_before_it_is_collected(bench, length, hello, capsys):
    evil, good = bench.frontend("evil", hello=hello), bench.frontend("good")
    evil.raw(struct.pack(">IB", length, frames.CONTROL))
    assert evil.wire.closed
    assert not good.wire.closed
    assert f"a frame of {length} bytes" in capsys.readouterr().out


async def test_a_peer_message_longer_than_any_ends_the_link(bench):
    frontend, peer = bench.frontend(), bench.peer("alice")
    number = await bench.connect(peer, frontend)
    frontend.raw(frames.peer(number, 1, bytes(65_536)))
    assert frontend.wire.closed


async def test_a_hello_that_comes_drop_by_drop_has_its_time_and_no_more(bench):
    slow = bench.frontend(hello=False)
    hello = frames.control(lm.Hello(1, 1, "slow", "test"))
    for byte in hello[:11]:
        slow.raw(bytes([byte]))
        bench.runtime.time_s += 1
        bench.backend.callers.sweep(bench.runtime.monotonic())
    assert slow.wire.closed
    assert not bench.backend.switchboard.links


async def test_nothing_counts_before_hello(bench):
    frontend = bench.frontend(hello=False)
    frontend.raw(frames.offer(1, 1, b"\x01\x01" + bytes(200)))
    assert frontend.wire.closed


async def test_a_frontend_without_a_name_is_refused(bench):
    frontend = bench.frontend(hello=False)
    frontend.tell(lm.Hello(1, 1, "", "test"))
    assert frontend.last(lm.Rejected).reason
    assert frontend.wire.closed
    assert not bench.backend.switchboard.links


async def test_frontends_beyond_the_limit_are_refused(bench):
    for number in range(MAX_FRONTENDS):
        assert not bench.frontend(f"f{number}").wire.closed
    late = bench.frontend("late")
    assert late.wire.closed
    assert late.last(lm.Rejected).reason
    assert len(bench.backend.switchboard.links) == MAX_FRONTENDS
    again = bench.frontend("f3")
    assert not again.wire.closed, "one that was started anew takes its own place"


async def test_whoever_does_not_say_hello_is_let_go(bench):
    silent, polite = bench.frontend(hello=False), bench.frontend()
    bench.backend.callers.sweep(bench.runtime.monotonic())
    assert not silent.wire.closed
    bench.runtime.time_s += 11
    bench.backend.callers.sweep(bench.runtime.monotonic())
    assert silent.wire.closed
    assert not polite.wire.closed
    strangers = [bench.frontend(hello=False) for _ in range(MAX_FRONTENDS + 1)]
    assert [stranger.wire.closed for stranger in strangers] == [True] + [False] * MAX_FRONTENDS


async def test_a_dial_of_another_frontend_can_not_be_failed(bench):
    peer = bench.peer("alice")
    evil, good = bench.frontend("evil"), bench.frontend("good")
    evil.link.sessions.update(dict.fromkeys(range(5)))  # so that the other one is asked
    connecting = bench.runtime.spawn(
        bench.backend.commands.connect(node_id=peer.node_id.hex(), address="127.0.0.1:1"), "connect"
    )
    await bench.settle()
    evil.link.sessions.clear()
    dial = good.last(lm.Dial)
    evil.tell(lm.DialFailed(dial.dial, "because I say so"))
    await bench.settle()
    assert not connecting.done()
    connecting.cancel()


async def test_dials_of_a_frontend_that_dies_in_the_handshake_fail_at_once(bench):
    peer, frontend = bench.peer("alice"), bench.frontend()
    connecting = bench.runtime.spawn(
        bench.backend.commands.connect(node_id=peer.node_id.hex(), address="127.0.0.1:1"), "connect"
    )
    await bench.settle()
    dial = frontend.last(lm.Dial)
    responder = Responder(peer.secret, b"\5" * 32)
    frontend.tell(lm.Act(77, responder.receive(dial.act), dial.dial))
    await bench.settle()
    responder.receive(frontend.last(lm.Established).act)
    assert responder.result.remote_static == bench.backend.node_id
    frontend.lose()
    await bench.settle()
    assert connecting.done()
    assert "frontend lost" in str(connecting.exception())
    bench.runtime.failures.clear()


@pytest.mark.parametrize("message", [
    lm.SessionReady(9, RAW_INIT, "x"), lm.SessionEnded(9, "x"), lm.Act(9, b"x"), lm.Act(9, b"x", 4), lm.DialFailed(4, "x"),
    lm.Acks(((9, 3),)), lm.GraphWanted(-7), lm.GraphWanted(2**62),
])  # fmt: skip
async def test_sessions_that_never_were_can_be_named_to_no_effect(bench, message):
    frontend = bench.frontend()
    frontend.tell(message)
    frontend.message(9, codec.encode(bolt1.Warning(bytes(32), b"")))
    await bench.settle()
    assert not bench.backend.switchboard.peers
    assert not frontend.link.sessions


async def test_nobody_is_spoken_for_before_act_three(bench):
    frontend = bench.frontend()
    frontend.tell(lm.HandshakeStarted(1, "x", act_one(bench).act_one()))
    await bench.settle()
    frontend.tell(lm.SessionReady(1, RAW_INIT, "x"))
    frontend.message(1, codec.encode(bolt1.Warning(bytes(32), b"")))
    await bench.settle()
    assert frontend.link.sessions[1].state is SessionState.HANDSHAKE
    assert not bench.backend.switchboard.peers


@pytest.mark.parametrize("act", [b"", b"\0", bytes(50), bytes(66), b"\1" + bytes(65), bytes(100_000)])
async def test_acts_of_any_size_and_form_are_refused(bench, act):
    frontend = bench.frontend()
    frontend.tell(lm.HandshakeStarted(1, "x", act))
    await bench.settle()
    assert frontend.last(lm.HandshakeRefused).session == 1
    frontend.tell(lm.HandshakeStarted(2, "x", act_one(bench).act_one()))
    await bench.settle()
    frontend.tell(lm.Act(2, act))
    await bench.settle()
    assert frontend.last(lm.HandshakeRefused).session == 2
    assert not frontend.link.sessions


async def test_an_act_out_of_turn_ends_the_session(bench):
    frontend = bench.frontend()
    peer = bench.peer("alice")
    number = await bench.connect(peer, frontend)
    await bench.settle()
    frontend.tell(lm.Act(number, bytes(66)))
    await bench.settle()
    assert frontend.last(lm.HandshakeRefused).session == number
    assert bench.backend.switchboard.session_of(peer.node_id) is None


async def test_two_acts_at_once_end_the_session(bench):
    frontend = bench.frontend()
    initiator = act_one(bench)
    frontend.tell(lm.HandshakeStarted(1, "x", initiator.act_one()))
    frontend.tell(lm.Act(1, bytes(66)))
    await bench.settle()
    assert not frontend.link.sessions


async def test_strangers_handshakes_have_a_rate(chain, tmp_path):
    bench = await Bench(tmp_path / "node", chain, handshakes_per_s=3).start()
    frontend = bench.frontend()
    for number in range(10):
        frontend.tell(lm.HandshakeStarted(number, "x", act_one(bench).act_one()))
    await bench.settle()
    frontend.take()
    assert len(frontend.heard(lm.Act)) == 3
    assert [refused.cause for refused in frontend.heard(lm.HandshakeRefused)] == ["busy"] * 7
    bench.runtime.time_s += 1
    frontend.tell(lm.HandshakeStarted(100, "x", act_one(bench).act_one()))
    await bench.settle()
    assert len(frontend.heard(lm.Act)) == 4
    await bench.drop()


async def test_handshakes_that_never_end_are_given_up(bench):
    frontend = bench.frontend()
    frontend.tell(lm.HandshakeStarted(1, "x", act_one(bench).act_one()))
    await bench.settle()
    bench.runtime.time_s += 100
    frontend.link.heard_s = bench.runtime.time_s
    frontend.link.beat()
    assert not frontend.link.sessions
    assert frontend.last(lm.CloseSession).session == 1


async def test_a_silent_link_is_closed(bench):
    frontend = bench.frontend()
    for _ in range(5):  # second by second: a backend that stood still itself would be patient
        bench.runtime.time_s += 1
        bench.backend.switchboard.beat()
    assert frontend.wire.closed


async def test_a_gap_in_a_sessions_messages_ends_the_link(bench):
    frontend, peer = bench.frontend(), bench.peer("alice")
    number = await bench.connect(peer, frontend)
    frontend.raw(frames.peer(number, 2, RAW_INIT))
    assert frontend.wire.closed


async def test_what_was_never_sent_can_not_be_acknowledged(bench):
    frontend, peer = bench.frontend(), bench.peer("alice")
    number = await bench.connect(peer, frontend)
    frontend.tell(lm.Acks(((number, 2**40),)))
    assert frontend.wire.closed


async def test_addresses_and_names_are_cut(bench):
    frontend = bench.frontend(hello=False)
    frontend.tell(lm.Hello(1, 1, "x" * 500_000, "v" * 400_000, addresses=("a" * 90_000,)))
    assert len(frontend.link.frontend_id) <= lm.MAX_FRONTEND_ID
    assert len(frontend.link.version) <= lm.MAX_FRONTEND_ID
    frontend.tell(lm.HandshakeStarted(1, "a" * 900_000, act_one(bench).act_one()))
    await bench.settle()
    assert len(frontend.link.sessions[1].address) <= 300


def framed(message: lm.Control) -> bytes:
    try:
        return frames.control(message)
    except OverflowError:  # of a number that msgpack does not know
        return b""


CONTROLS = st.one_of(
    *(
        st.builds(kind)
        if not kind.__struct_fields__
        else st.builds(
            kind,
            **{
                name: {
                    "session": st.integers(1, 4),
                    "dial": st.one_of(st.none(), st.integers(0, 3)),
                    "act": st.one_of(st.binary(max_size=70), st.just(bytes(50)), st.just(b"\0" + public_key(b"\2" * 32) + bytes(16))),
                    "acks": st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=3).map(tuple),
                    "after": st.integers(-5, 5),
                    "init": st.one_of(st.just(RAW_INIT), st.binary(max_size=80)),
                }[name]
                for name in kind.__struct_fields__
                if name in {"session", "act", "acks", "after", "init"} or (name == "dial" and kind is lm.Act)
            },
        )
        for kind in (lm.Beat, lm.Acks, lm.HandshakeStarted, lm.Act, lm.DialFailed, lm.SessionReady, lm.SessionEnded, lm.GraphWanted, lm.Hello, lm.Status)
    )
).map(framed)  # fmt: skip
FRAMES = st.one_of(
    CONTROLS,
    st.builds(frames.peer, st.integers(0, 4), st.integers(0, 5), st.binary(min_size=1, max_size=80)),
    st.builds(frames.offer, st.integers(0, 9), st.integers(0, 4), st.builds(lambda kind, rest: kind + rest, st.sampled_from([b"\1\0", b"\1\1", b"\1\2"]), st.one_of(st.binary(max_size=500), st.binary(min_size=430, max_size=450)))),
    st.binary(max_size=60),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FRAMES, max_size=12))
def test_no_series_of_frames_gets_an_exception_out(event_loop_bench, series):
    run, bench = event_loop_bench

    async def feed():
        frontend: Frontend = bench.frontend("evil")
        for frame in series:
            frontend.raw(frame)
        await bench.settle()
        assert not bench.runtime.failures, (bench.runtime.failures, series)
        frontend.lose()
        await bench.settle()
        bench.frontends.clear()
        assert not bench.backend.switchboard.links
        assert not any(peer.session for peer in bench.backend.switchboard.peers.values())

    run(feed())


@pytest.fixture
def event_loop_bench(chain, tmp_path):
    with asyncio.Runner() as runner:
        bench = runner.run(Bench(tmp_path / "node", chain).start())
        yield runner.run, bench
        runner.run(bench.drop())
