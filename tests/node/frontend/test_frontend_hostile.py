"""Peers that mean harm, or have gone wrong: each loses its own session, and nothing else happens."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lone_parts import lone_connection, lone_frontend
from msgspec.structs import replace
from noise_client import INIT, NoiseClient, Site
from scripted_backend import PeerFrame

from lnsim.graph_generator import REGTEST
from node.frontend.connection import Hold
from node.link.messages import Act, HandshakeStarted
from node.peer.handshake import HandshakeResult
from node.peer.transport import Transport
from node.wire import bolt1, bolt7
from node.wire.codec import encode

ERROR = encode(bolt1.Error(bytes(32), bytes(2_000)))
PRIVATE = b"\x01\x02" + bytes(64) + REGTEST + bytes(8) + b"\0\0\0\1" + b"\x03" + bytes(27)


async def ends(site: Site, client: NoiseClient, session: int) -> str:
    """The client's session ends, and somebody else still gets in."""
    await client.closed()
    cause = await site.backend.ended(session)
    bystander, _ = await site.peer("bystander")
    await bystander.pinged()
    return cause


async def test_half_a_handshake_ends_by_the_clock(site: Site):
    site.backend.limits = replace(site.backend.limits, handshake_timeout_s=0.05)
    frontend = await site.open()
    client = NoiseClient("half", site.backend.node_id)
    client.noise.data_to_send()
    site.clients.append(client)
    await site.runtime.connect(frontend.address, lambda: client)
    client.transport.write(bytes(20))
    await client.closed()
    assert not frontend.connections


async def test_a_backend_that_never_answers_act_one_holds_nobody_for_ever(site: Site):
    site.backend.limits = replace(site.backend.limits, handshake_timeout_s=0.05)
    site.backend.shaking = False
    await site.open()
    client = await site.connect("ann")
    (started,) = await site.backend.heard.first(HandshakeStarted)
    await client.closed()
    assert await site.backend.ended(started.session) == "handshake timeout"


async def test_no_init_ends_by_the_clock(site: Site):
    site.backend.limits = replace(site.backend.limits, init_timeout_s=0.05)
    await site.open()
    client = await site.connect("ann")
    (started,) = await site.backend.heard.first(HandshakeStarted)
    await client.closed()
    assert await site.backend.ended(started.session) == "no_init"


async def test_garbage_as_act_three_ends_the_session(site: Site):
    frontend = await site.open()
    client = NoiseClient("ann", site.backend.node_id)
    client.data_received = lambda _: client.transport.write(b"\0" * 66)
    site.clients.append(client)
    await site.runtime.connect(frontend.address, lambda: client)
    (started,) = await site.backend.heard.first(HandshakeStarted)
    await ends(site, client, started.session)
    assert len(site.backend.heard.of(Act)) == 2


async def test_bytes_that_do_not_decrypt_end_the_session(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    client.transport.write(bytes(100))
    await ends(site, client, ready.session)


@pytest.mark.parametrize(
    ("what", "messages", "cause"),
    [
        ("an unknown even message", [b"\x7f\x00"], "unknown_even"),
        ("a second init", [INIT], "second_init"),
        ("pings without end", [encode(bolt1.Ping(1, b""))] * 50, "ping_flood"),
        ("no type at all", [b"\x01"], "malformed"),
        ("nothing at all", [b""], "malformed"),
        ("oversized gossip", [b"\x01\x01" + b"\xff" * 65_533], "malformed"),
        (
            "queries without end",
            [encode(bolt7.GossipTimestampFilter(REGTEST, 0, 1))] * 2_000,
            "query flood",
        ),
    ],
)
async def test_a_peer_that_breaks_the_rules_loses_its_session(site: Site, small, what, messages, cause):
    frontend = await site.open()
    site.backend.knows(small)
    client, ready = await site.peer("ann")
    if cause == "query flood":
        frontend.connections[ready.session].pause_writing()
    client.send(*messages)
    assert await ends(site, client, ready.session) == cause, what


@pytest.mark.parametrize("number", [0x7F01, 53_011], ids=["any", "what eclair's fronts say among themselves"])
async def test_an_unknown_odd_message_is_ignored(site: Site, number: int):
    await site.open()
    client, _ = await site.peer("ann")
    client.send(number.to_bytes(2, "big") + bytes(100))
    await client.pinged()
    assert site.backend.heard.of(PeerFrame) == [], "the backend hears nothing of it"


async def test_a_peer_that_never_reads_is_closed_and_nothing_is_kept(site: Site):
    site.backend.limits = replace(site.backend.limits, max_write_buffer_bytes=300_000)
    frontend = await site.open()
    client, ready = await site.peer("slow")
    socket = frontend.connections[ready.session]._socket
    client.transport.pause_reading()
    loud = encode(bolt1.Error(bytes(32), bytes(60_000)))
    for _ in range(400):  # far more than the kernel's buffers hold
        site.backend.message(ready.session, loud)
    assert await site.backend.ended(ready.session) == "slow reader"
    assert socket.get_write_buffer_size() == 0
    bystander, _ = await site.peer("ann")
    await bystander.pinged()


async def test_without_credit_a_peer_is_not_read_and_with_it_goes_on(site: Site):
    site.backend.limits = replace(site.backend.limits, session_window_bytes=10_000)
    site.backend.acking = False
    frontend = await site.open()
    client, ready = await site.peer("ann")
    connection = frontend.connections[ready.session]
    for number in range(1, 6):
        client.send(ERROR)
        await site.backend.messages(ready.session, number)
    assert connection._holds == {Hold.CREDIT}
    client.send(ERROR)
    bystander, _ = await site.peer("bob")
    await bystander.pinged()
    assert len(await site.backend.messages(ready.session, 5)) == 5
    site.backend.ack(ready.session, 5)
    (*_, last) = await site.backend.messages(ready.session, 6)
    assert last.sequence == 6
    await client.pinged()


async def test_private_updates_count_against_the_credit_too(site: Site):
    site.backend.limits = replace(site.backend.limits, session_window_bytes=300)
    site.backend.acking = False
    frontend = await site.open()
    client, ready = await site.peer("ann")
    client.send(PRIVATE, PRIVATE, PRIVATE)
    await site.backend.messages(ready.session, 3)
    assert frontend.connections[ready.session]._holds == {Hold.CREDIT}


async def test_peers_that_do_not_read_take_nobodys_turn(site: Site, small, monkeypatch):
    monkeypatch.setattr("node.frontend.gossip.MAX_FLUSHES_PER_SWEEP", 1)
    site.backend.limits = replace(site.backend.limits, flush_interval_s=0.01)
    frontend = await site.open()
    _, ready = await site.peer("stuck")
    frontend.connections[ready.session].pause_writing()
    client, _ = await site.peer("ann")
    client.send(encode(bolt7.GossipTimestampFilter(REGTEST, 1, 0xFFFF_FFFF)))
    await client.pinged()
    site.backend.change(*small[:3])
    for delta in small[1:3]:
        await client.gets(delta.update)


KINDS = st.sampled_from([16, 1, 17, 18, 19, 128, 256, 257, 258, 259, 261, 262, 263, 264, 265, 513, 32_767])
LIKELY = st.sampled_from([b"", INIT[2:], REGTEST, bytes(64) + REGTEST, REGTEST + b"\0\0\0\0\xff\xff\xff\xff"])
MESSAGES = st.lists(
    st.binary(max_size=200)
    | st.builds(
        lambda kind, head, tail: kind.to_bytes(2, "big") + head + tail,
        KINDS,
        LIKELY,
        st.binary(max_size=300),
    ),
    max_size=8,
)


@examples(max_examples=150)
@given(MESSAGES, st.booleans())
def test_random_messages_close_the_connection_at_worst(messages, initialized):
    async def run() -> None:
        frontend, _ = lone_frontend()
        connection, socket = lone_connection(frontend)
        peer = Transport(connection_keys(connection.node_id))
        if initialized:
            connection.data_received(peer.encrypt([INIT]))
        for message in messages:
            connection.data_received(peer.encrypt([message]))
        frontend.gossip.sweep()
        await asyncio.sleep(0)
        assert connection.ended == socket.closed

    asyncio.run(run())


def connection_keys(node_id: bytes):
    return HandshakeResult(node_id, bytes(32), bytes(32), bytes(32))
