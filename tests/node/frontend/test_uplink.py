"""The frontend's end of the link: when the port is open, whom it obeys, and what it does with nonsense."""

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace
from noise_client import INIT, Site
from scripted_backend import ScriptedBackend

from lnsim.graph_generator import message_of
from node.gossip.graph import ChannelRemoved
from node.link import frames
from node.link.messages import (
    CloseSession,
    Dial,
    Established,
    GraphCurrent,
    GraphWanted,
    HandshakeStarted,
    Hello,
    Rejected,
    Verdicts,
)
from node.wire import bolt1
from node.wire.codec import encode


async def test_the_port_opens_only_once_the_graph_is_current(site: Site, small):
    site.backend.knows(small)
    site.backend.feeding = False
    frontend = await site.start()
    (wanted,) = await site.backend.heard.first(GraphWanted)
    assert wanted.after == -1
    assert frontend.address == ""
    site.backend.feed()
    await site.listening()
    assert len(frontend.gossip.graph.channels) == 6
    await site.peer("ann")


async def test_the_port_and_all_sessions_close_with_the_link_of_a_backend_of_a_release_before(site: Site):
    site.backend.protocol = 1  # it would not know what it is presented
    frontend = await site.open()
    client, _ = await site.peer("ann")
    address = frontend.address
    site.backend.stop()
    await client.closed()
    assert frontend.address == ""
    assert await site.refuses(address)
    await site.backend.start()
    await site.listening()
    await site.peer("ann")


async def test_a_graph_whose_channels_are_all_gone_is_current_too(site: Site):
    site.backend.sequence = 5
    await site.open()
    assert len(site.backend.heard.of(GraphWanted)) == 1


async def test_a_copy_that_is_current_is_not_sent_again(site: Site, small):
    site.backend.knows(small)
    frontend = await site.open()
    site.backend.hang_up()
    (_, wanted) = await site.backend.heard.first(GraphWanted, 2)
    assert wanted.after == len(small)
    await site.listening()
    assert len(frontend.gossip.graph.channels) == 6


async def test_a_backend_of_another_term_counts_anew_so_its_graph_is_fetched_whole(site: Site, small):
    site.backend.knows(small)
    await site.open()
    site.backend.epoch = 2
    site.backend.hang_up()
    (_, wanted) = await site.backend.heard.first(GraphWanted, 2)
    assert wanted.after == -1


async def test_a_backend_whose_term_is_over_is_not_obeyed(site: Site):
    site.backend.epoch = 7
    frontend = await site.open()
    site.backend.epoch = 6
    site.backend.hang_up()
    hellos = await site.backend.heard.first(Hello, 3)
    assert [hello.highest_epoch for hello in hellos] == [0, 7, 7]
    assert not frontend.uplink.is_up
    assert len(site.backend.heard.of(GraphWanted)) == 1
    site.backend.epoch = 8
    await site.backend.heard.first(GraphWanted, 2)


async def test_a_rejected_frontend_keeps_asking_and_gets_in_later(site: Site):
    site.backend.welcomes = Rejected("not you")
    frontend = await site.start()
    await site.backend.heard.first(Hello, 3)
    assert frontend.uplink.rejected == "not you"
    site.backend.welcomes = None
    await site.listening()
    assert frontend.uplink.rejected == ""


async def test_a_protocol_that_was_not_offered_is_refused(site: Site):
    site.backend.protocol = 3
    frontend = await site.start()
    hellos = await site.backend.heard.first(Hello, 2)
    assert (hellos[0].protocol_min, hellos[0].protocol_max) == (1, 2)
    assert not frontend.listening.is_set()


async def test_nothing_is_obeyed_before_the_welcome(site: Site):
    site.backend.welcomes = Dial(1, bytes(33), "127.0.0.1:1", bytes(50))
    await site.start()
    await site.backend.heard.first(Hello, 2)
    assert site.backend.heard.count("lost") >= 1


async def test_a_second_welcome_ends_the_link(site: Site):
    await site.open()
    site.backend.send(site.backend.welcome())
    await site.backend.heard.first(Hello, 2)


async def test_a_backend_that_never_answers_a_hello_is_left(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node.frontend.uplink.WELCOME_TIMEOUT_S", 0.05)
    site.backend.welcoming = False
    await site.start()
    await site.backend.heard.first(Hello, 2)


async def test_a_silent_backend_is_left(site: Site):
    site.backend.limits = replace(site.backend.limits, beat_timeout_s=0.1)
    await site.open()
    await site.backend.heard.first(Hello, 2)


async def test_a_port_that_was_opening_when_the_link_was_lost_does_not_stay_open(site: Site):
    frontend = await site.open()
    frontend.link_lost(hold=False, silent=False)
    frontend.graph_current(frontend.gossip.graph.sequence)
    frontend.graph_current(frontend.gossip.graph.sequence)  # said twice, opened once
    await asyncio.sleep(0)
    frontend.link_lost(hold=False, silent=False)
    for _ in range(20):
        await asyncio.sleep(0)
    assert frontend.address == ""


async def test_the_backend_hears_at_once_that_a_slow_peer_has_caught_up(site: Site):
    frontend = await site.open()
    _, ready = await site.peer("ann")
    connection = frontend.connections[ready.session]
    connection.pause_writing()
    site.backend.message(ready.session, encode(bolt1.Error(bytes(32), b"x")))
    assert await site.backend.heard.until(lambda: connection.receive_window.sequence)
    assert ready.session not in frontend.uplink._acks
    connection.resume_writing()
    assert frontend.uplink._acks == {}


UNFIT = {
    "keys that are no keys": Established(1, bytes(33), b"short", bytes(32), bytes(32)),
    "a last message longer than any": CloseSession(1, "x", bytes(65_536)),
    "a peer message longer than any": frames.peer(1, 1, bytes(65_536)),
    "a frame longer than any": struct.pack(">IB", frames.MAX_FRAME + 1, frames.CONTROL),
    "a gap in the numbers": frames.peer(1, 2, b"\0\x11"),
    "an unknown kind": struct.pack(">IB", 1, 9),
    "a frame for backends": frames.offer(1, 1, b"\x01\x00"),
    "a control message for backends": HandshakeStarted(1, "a", b""),
    "a channel that is none": frames.graph(0, struct.pack(">BQI", 0, 1, 2) + b"\x01\x00"),
    "an update that is none": frames.graph(1, struct.pack(">BQI", 1, 1, 2) + b"\x01\x02"),
    "a node that is none": frames.graph(0, struct.pack(">BQI", 2, 1, 2) + b"\x01\x01"),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_a_backend_gone_wrong_loses_the_link(site: Site, what: str):
    frontend = await site.open()
    client, ready = await site.peer("ann")
    frontend.connections[1] = frontend.connections[ready.session]
    unfit = UNFIT[what]
    site.backend.write(unfit if isinstance(unfit, bytes) else frames.control(unfit))
    await site.backend.heard.first(Hello, 2)
    frontend.connections.pop(1, None)
    await client.pinged()


async def test_a_verdict_that_only_a_later_release_knows_counts_as_a_refusal(site: Site):
    frontend = await site.open()
    site.backend.send(Verdicts(((1, 200),)))
    _, ready = await site.peer("ann")
    assert frontend.connections[ready.session].node_id


async def test_an_update_record_with_a_channels_bytes_is_refused(site: Site, small):
    await site.open()
    raw = message_of(small[0])
    site.backend.write(frames.graph(0, struct.pack(">BQI", 1, 1, len(raw)) + raw))
    await site.backend.heard.first(Hello, 2)


async def test_a_removed_channel_leaves_the_copy(site: Site, small):
    site.backend.knows(small)
    frontend = await site.open()
    scid = next(iter(frontend.gossip.graph.channels))
    site.backend.change(ChannelRemoved(scid))
    await site.peer("ann")
    assert scid not in frontend.gossip.graph.channels


CONTROLS = st.dictionaries(
    st.sampled_from(
        [
            "t",
            "session",
            "act",
            "acks",
            "verdicts",
            "sequence",
            "number",
            "cause",
            "message",
            "epoch",
            "node_id",
            "send_key",
            "receive_key",
            "chaining_key",
            "dial",
            "address",
            "protocol",
            "chain_hash",
            "features",
        ]
    ),
    st.integers(-2, 2**64 - 1)
    | st.binary(max_size=70)
    | st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=3)
    | st.sampled_from(
        ["welcome", "acks", "act", "established", "close", "current", "verdicts", "sync", "beat"]
    ),
).map(msgpack.encode)
FRAMES = st.lists(
    st.tuples(st.integers(0, 5), st.binary(max_size=300))
    | st.tuples(st.just(frames.CONTROL), CONTROLS)
    | st.tuples(
        st.just(frames.GRAPH),
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.binary(max_size=200)).map(
            lambda it: it[0].to_bytes(8, "big") + struct.pack(">BQI", it[1], 1, len(it[2])) + it[2]
        ),
    ),
    min_size=1,
    max_size=6,
)


@examples(max_examples=150)
@given(FRAMES)
def test_random_frames_end_the_link_and_raise_nothing(bodies):
    from lone_parts import lone_frontend

    async def run() -> None:
        frontend, link = lone_frontend()
        for kind, body in bodies:
            if link.aborted:
                break
            frontend.uplink.data_received(struct.pack(">IB", len(body) + 1, kind) + body)

    asyncio.run(run())


async def test_a_stray_act_for_an_established_session_changes_nothing(site: Site):
    from node.link.messages import Act

    await site.open()
    client, ready = await site.peer("ann", INIT)
    site.backend.send(Act(ready.session, bytes(50)), GraphCurrent(0))
    await client.pinged()


async def test_of_several_backends_the_one_that_answers_is_taken_and_later_the_one_that_took_over(
    site: Site, tmp_path
):
    """A standby does not listen. Which term counts is known from whoever was welcomed."""
    other = ScriptedBackend(site.runtime, str(tmp_path / "other.sock"))
    other.epoch = 2
    frontend = await site.open(backend=(other.address, site.backend.address))
    assert frontend.uplink.highest_epoch == 1
    await other.start()
    site.backend.stop()
    (hello,) = await other.heard.first(Hello)
    assert hello.highest_epoch == 1
    await site.listening()
    assert frontend.uplink.highest_epoch == 2

    await site.backend.start()  # its term is over, and it does not know
    other.hang_up()
    await other.heard.first(Hello, 2)
    await site.listening()
    assert frontend.uplink.welcomed.epoch == 2
    other.stop()
