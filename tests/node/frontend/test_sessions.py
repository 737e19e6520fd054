"""A peer's session at the frontend: handshake, init, pings, and messages both ways."""

from msgspec.structs import replace
from noise_client import INIT, NoiseClient, Site

from node.link.messages import CloseSession, DialFailed, HandshakeRefused, HandshakeStarted, SessionEnded
from node.wire import bolt1
from node.wire.codec import decode, encode


def error(text: bytes) -> bytes:
    return encode(bolt1.Error(bytes(32), text))


async def test_init_messages_are_exchanged_and_the_backend_gets_the_peers(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    assert ready.init == INIT
    assert ready.address.startswith("127.0.0.1:")
    init = decode(client.messages[0])
    assert isinstance(init, bolt1.Init)
    assert init.networks == site.backend.welcome().chain_hash


async def test_a_ping_is_answered_while_the_backend_says_nothing(site: Site):
    await site.open()
    client, _ = await site.peer("ann")
    site.backend.acking = False
    client.send(encode(bolt1.Ping(7, b"")))
    (pong,) = await client.of_type(bolt1.Pong.number)
    assert decode(pong) == bolt1.Pong(bytes(7))


async def test_messages_reach_the_backend_as_the_very_bytes_numbered_from_one(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    raws = [error(b"one"), b"\x00\x80 no add at all", encode(bolt1.Warning(bytes(32), b"three"))]
    client.send(*raws)
    frames = await site.backend.messages(ready.session, 3)
    assert [(frame.sequence, frame.raw) for frame in frames] == [(1, raws[0]), (2, raws[1]), (3, raws[2])]


async def test_messages_of_the_backend_reach_the_peer_in_order(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    raws = [error(str(number).encode()) for number in range(1_200)]  # over a change of keys
    site.backend.message(ready.session, *raws)
    await client.gets(raws[-1])
    assert client.messages[1:] == raws


async def test_the_last_message_of_a_close_goes_out_before_the_socket_closes(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    site.backend.message(ready.session, error(b"first"))
    site.backend.send(CloseSession(ready.session, "replaced", error(b"last")))
    await client.closed()
    assert client.messages[1:] == [error(b"first"), error(b"last")]
    assert await site.backend.ended(ready.session) == "replaced"


async def test_frames_about_sessions_that_ended_are_ignored(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    site.backend.message(99, error(b"to nobody"))
    site.backend.send(CloseSession(99, "gone"), HandshakeRefused(99, "gone"))
    site.backend.ack(99, 1)
    site.backend.message(ready.session, error(b"to ann"))
    await client.gets(error(b"to ann"))


async def test_the_end_of_a_socket_is_the_end_of_its_session(site: Site):
    frontend = await site.open()
    client, ready = await site.peer("ann")
    client.close()
    assert await site.backend.ended(ready.session) == "connection lost"
    assert not frontend.connections


async def test_a_frontend_that_is_full_turns_the_next_one_away(site: Site):
    frontend = await site.open(max_connections=1)
    kept, _ = await site.peer("ann")
    turned_away = await site.connect("bob")
    await turned_away.closed()
    await kept.pinged()
    assert len(frontend.connections) == 1


async def test_a_dial_leads_to_a_session(site: Site):
    await site.open()
    peer = NoiseClient("ann", None)
    site.clients.append(peer)
    listener = await site.runtime.listen("127.0.0.1:0", lambda: peer)
    site.backend.dial(5, peer.node_id, listener.address)
    await peer.established()
    peer.send(INIT)
    (ready,) = await site.backend.ready()
    assert ready.address == listener.address
    await peer.of_type(bolt1.Init.number)
    peer.send(error(b"hello"))
    (frame,) = await site.backend.messages(ready.session)
    assert frame.raw == error(b"hello")
    listener.close()


async def test_a_dial_that_nobody_takes_fails(site: Site):
    await site.open()
    listener = await site.runtime.listen("127.0.0.1:0", lambda: site.clients[0])
    listener.close()
    site.backend.dial(5, site.backend.node_id, listener.address)
    (failed,) = await site.backend.heard.first(DialFailed)
    assert failed.dial == 5
    assert failed.cause


async def test_a_dial_to_what_is_no_host_name_fails_and_nothing_more(site: Site):
    frontend = await site.open()
    for number, address in enumerate(("a..b:9735", "x" * 64 + ":9735", "no address", "\0:1", "h:²")):
        site.backend.dial(number, site.backend.node_id, address)
    await site.backend.heard.first(DialFailed, 5)
    assert frontend.listening.is_set()


async def test_a_dial_whose_peer_never_answers_act_one_fails_by_the_clock(site: Site):
    site.backend.limits = replace(site.backend.limits, handshake_timeout_s=0.05)
    await site.open()
    mute = NoiseClient("mute", None)
    mute.data_received = lambda _: None
    site.clients.append(mute)
    listener = await site.runtime.listen("127.0.0.1:0", lambda: mute)
    site.backend.dial(6, mute.node_id, listener.address)
    (failed,) = await site.backend.heard.first(DialFailed)
    assert (failed.dial, failed.cause) == (6, "handshake timeout")
    listener.close()


async def test_garbage_instead_of_act_one_ends_that_session_only(site: Site):
    await site.open()
    kept, _ = await site.peer("ann")
    vandal = await site.connect("vandal")
    (_, started) = await site.backend.heard.first(HandshakeStarted, 2)
    vandal.transport.write(b"\xff" * 200)
    await vandal.closed()
    assert await site.backend.ended(started.session)
    await kept.pinged()
    assert len(site.backend.heard.of(SessionEnded)) == 1
