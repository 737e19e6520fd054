"""The backend is away: what a frontend does alone, what it keeps, and what it says when there is one again."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from noise_client import INIT, NoiseClient, Site
from scripted_backend import PeerFrame

from lnsim.graph_generator import REGTEST, message_of
from node.frontend.health import complaints
from node.frontend.metrics import gather
from node.link import frames
from node.link.messages import (
    Adopted,
    CloseSession,
    Dialling,
    Drain,
    HandshakeStarted,
    HeldSession,
    Hello,
    Leaving,
    Limits,
    Present,
    SessionReady,
    Status,
)
from node.link.presenting import MAX_PRESENT_BYTES, presented
from node.wire import bolt1, bolt7
from node.wire.codec import decode, encode

MAX_TURNS = 200_000  # of the loop; only a failing test takes so many


async def until(condition: Callable[[], object]) -> None:
    for _ in range(MAX_TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


def error(text: bytes) -> bytes:
    return encode(bolt1.Error(bytes(32), text))


def held(site: Site, count: int = 1) -> list[HeldSession]:
    """What the frontend presented at its `count`-th welcome."""
    parts = site.backend.heard.of(Present)
    ends = [number for number, part in enumerate(parts, 1) if part.last]
    first = ends[count - 2] if count > 1 else 0
    return [session for part in parts[first : ends[count - 1]] for session in part.sessions]


async def presented_again(site: Site, count: int = 2) -> list[HeldSession]:
    await site.backend.heard.until(lambda: sum(part.last for part in site.backend.heard.of(Present)) >= count)
    return held(site, count)


async def away(site: Site) -> None:
    """The backend is gone, and the frontend knows."""
    assert site.frontend is not None
    site.backend.stop()
    frontend = site.frontend
    await until(lambda: not frontend.uplink.is_up)


async def taken_in(site: Site, number: int, count: int) -> None:
    """The frontend has got so many messages of this session's peer."""
    assert site.frontend is not None
    connection = site.frontend.connections[number]
    await until(lambda: connection.send_window.sequence >= count)


async def test_pings_and_queries_are_answered_while_the_backend_is_away(site: Site, small):
    site.backend.knows(small)
    await site.open()
    client, _ = await site.peer("ann")
    await away(site)
    client.send(encode(bolt1.Ping(7, b"")))
    (pong,) = await client.of_type(bolt1.Pong.number)
    assert decode(pong) == bolt1.Pong(bytes(7))
    client.send(encode(bolt7.QueryChannelRange(REGTEST, 0, 1 << 24)))
    (reply,) = await client.of_type(bolt7.ReplyChannelRange.number)
    assert len(decode(reply).encoded_short_ids) == 1 + 8 * 6


async def test_a_session_is_presented_with_its_counts_and_goes_on_once_adopted(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    site.backend.acking = False
    client.send(error(b"one"), error(b"two"))
    await site.backend.messages(ready.session, 2)
    site.backend.ack(ready.session, 1)
    site.backend.message(ready.session, error(b"to you"))
    await client.gets(error(b"to you"))
    await away(site)
    client.send(error(b"three"))
    await taken_in(site, ready.session, 3)

    site.backend.acking = True
    await site.backend.start()
    (session,) = await presented_again(site)
    assert (session.number, session.node_id, session.incoming) == (ready.session, client.node_id, True)
    assert (session.sent, session.acked, session.received) == (3, 1, 1)
    assert decode(session.init).features == decode(INIT).features
    assert session.address == ready.address
    raws = await site.backend.heard.until(
        lambda: found if len(found := site.backend.heard.of(PeerFrame)) == 4 else []
    )
    assert [(frame.sequence, frame.raw) for frame in raws[2:]] == [(2, error(b"two")), (3, error(b"three"))]

    site.backend.message(ready.session, error(b"again"))
    await client.gets(error(b"again"))
    client.send(error(b"four"))
    await site.backend.heard.until(lambda: site.backend.heard.of(PeerFrame)[4:])
    assert site.backend.heard.of(PeerFrame)[4].sequence == 4


async def test_a_session_that_is_not_adopted_is_closed(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    site.backend.adopting = False
    site.backend.hang_up()
    await presented_again(site)
    site.backend.send(CloseSession(ready.session, "not held"))
    await client.closed()


async def test_until_it_is_adopted_a_session_carries_nothing_either_way(site: Site):
    await site.open()
    client, ready = await site.peer("ann")
    site.backend.adopting = False
    site.backend.hang_up()
    await presented_again(site)
    client.send(error(b"too early"))
    await taken_in(site, ready.session, 1)
    site.backend.write(frames.peer(ready.session, 1, error(b"of nobody's")))
    site.backend.send(Adopted(((ready.session, 0),)))
    (frame,) = await site.backend.messages(ready.session)
    assert frame.raw == error(b"too early")
    await client.pinged()
    assert error(b"of nobody's") not in client.messages


async def test_a_peer_that_goes_meanwhile_is_not_presented(site: Site):
    frontend = await site.open()
    client, _ = await site.peer("ann")
    await away(site)
    client.close()
    await until(lambda: not frontend.connections)
    await site.backend.start()
    assert await presented_again(site) == []


async def test_a_peer_is_read_no_more_once_its_credit_is_used_up_and_again_after(site: Site):
    site.backend.limits = replace(site.backend.limits, session_window_bytes=3_000)
    frontend = await site.open()
    client, ready = await site.peer("ann")
    await away(site)
    raws = [error(bytes(1_000) + bytes([number])) for number in range(10)]
    connection = frontend.connections[ready.session]
    for raw in raws:  # one at a time: what one read brings is taken whole
        before = connection.send_window.sequence
        client.send(raw)
        if not connection.send_window.exhausted:
            await until(lambda before=before: connection.send_window.sequence > before)
    assert connection.send_window.sequence == 3
    await site.backend.start()
    got = await site.backend.messages(ready.session, 10)
    assert [frame.raw for frame in got] == raws


async def test_a_backend_that_is_away_for_too_long_is_given_up(site: Site):
    frontend = await site.open(backend_away_timeout_s=0.1)
    client, _ = await site.peer("ann")
    address = frontend.address
    await away(site)
    await client.closed()
    await until(lambda: not frontend.address)
    assert await site.refuses(address)
    await site.backend.start()
    await site.listening()
    await site.peer("ann")


async def test_a_frontend_that_is_cut_off_holds_its_peers_back_for_a_moment_only(site: Site):
    """Its backend may well live, and other frontends may have it: peers are to come in there."""
    site.backend.limits = replace(site.backend.limits, beat_timeout_s=0.1, silent_hold_s=0.05)
    await site.open()
    client, _ = await site.peer("ann")
    site.backend.welcoming = False
    await client.closed()


async def test_sessions_that_no_backend_answers_for_are_given_up_too(site: Site):
    await site.open(backend_away_timeout_s=0.2)
    client, _ = await site.peer("ann")
    site.backend.adopting = False
    site.backend.hang_up()
    await presented_again(site)
    await client.closed()
    await site.peer("bob")


async def test_who_connects_meanwhile_waits_a_moment(site: Site):
    await site.open()
    await away(site)
    client = await site.connect("ann")
    await site.backend.start()
    await client.established()
    assert site.backend.heard.of(HandshakeStarted)


async def test_who_had_connected_and_said_nothing_yet_waits_as_well(site: Site):
    frontend = await site.open()
    client = NoiseClient("late", site.backend.node_id)
    client.connection_made = lambda transport: setattr(client, "transport", transport)
    site.clients.append(client)
    await site.runtime.connect(frontend.address, lambda: client)
    await until(lambda: frontend.connections)
    await away(site)
    client._flush()
    await site.backend.start()
    await client.established()


async def test_a_handshake_under_way_ends_with_its_backend(site: Site):
    await site.open()
    site.backend.shaking = False
    client = await site.connect("ann")
    await site.backend.heard.first(HandshakeStarted)
    site.backend.hang_up()
    await client.closed()


async def test_a_peer_that_has_not_said_init_ends_with_its_backend(site: Site):
    await site.open()
    client = await site.connect("ann")
    await client.established()
    site.backend.hang_up()
    await client.closed()
    assert not site.backend.heard.of(SessionReady)


async def test_a_backend_that_leaves_for_good_takes_its_sessions_with_it(site: Site):
    frontend = await site.open()
    client, _ = await site.peer("ann")
    site.backend.send(Leaving(returns=False))
    await asyncio.sleep(0)
    site.backend.stop()
    await client.closed()
    assert frontend.address == ""


async def test_a_backend_that_says_it_will_be_back_is_waited_for(site: Site):
    await site.open()
    client, _ = await site.peer("ann")
    site.backend.send(Leaving())
    await away(site)
    await client.pinged()


async def test_a_backend_of_a_release_before_that_takes_over_adopts_nothing(site: Site):
    await site.open()
    client, _ = await site.peer("ann")
    await away(site)
    site.backend.protocol = 1
    await site.backend.start()
    await client.closed()
    assert len(site.backend.heard.of(Present)) == 1
    await site.peer("bob")


async def test_a_lower_epoch_is_presented_nothing(site: Site):
    site.backend.epoch = 5
    await site.open()
    client, _ = await site.peer("ann")
    site.backend.epoch = 4
    site.backend.hang_up()
    await site.backend.heard.first(Hello, 3)
    assert len(site.backend.heard.of(Present)) == 1
    await client.pinged()
    site.backend.epoch = 6
    assert len(await presented_again(site)) == 1


async def test_an_announcement_that_comes_meanwhile_is_offered_to_the_next_backend(site: Site, small):
    await site.open()
    client, _ = await site.peer("ann")
    await away(site)
    client.send(message_of(small[0]))
    await client.pinged()
    await site.backend.start()
    await presented_again(site)
    await site.backend.heard.until(
        lambda: [o for o in site.backend.heard if getattr(o, "raw", b"") == message_of(small[0])]
    )


@pytest.mark.parametrize("adopted", [Adopted(((1 << 60, 0),)), Adopted(())])
async def test_adopting_what_is_not_here_does_nothing(site: Site, adopted: Adopted):
    await site.open()
    client, _ = await site.peer("ann")
    site.backend.send(adopted)
    await client.pinged()
    assert len(site.backend.heard.of(Hello)) == 1


async def test_adopting_what_was_not_presented_or_behind_what_was_sent_loses_the_link(site: Site):
    await site.open()
    _, ready = await site.peer("ann")
    site.backend.send(Adopted(((ready.session, 0),)))
    await site.backend.heard.first(Hello, 2)
    site.backend.adopting = False
    await presented_again(site, 2)
    site.backend.hang_up()
    await presented_again(site, 3)
    site.backend.send(Adopted(((ready.session, 7),)))
    await site.backend.heard.first(Hello, 4)


def of_size(number: int, init_size: int, address: str, counts: tuple[int, int, int]) -> HeldSession:
    return HeldSession(number, b"\2" * 33, bytes(init_size), address, *counts)


COUNTS = st.integers(0, 2**56)
HELD = st.tuples(COUNTS, st.integers(4, 65_535), st.text(max_size=300), st.tuples(COUNTS, COUNTS, COUNTS))


@settings(max_examples=40)
@given(st.lists(HELD, max_size=30))
def test_all_that_is_held_is_presented_in_frames_that_fit(
    held_: list[tuple[int, int, str, tuple[int, int, int]]],
):
    sessions = [of_size(*each) for each in held_]
    parts = list(presented(sessions))
    assert [session for part in parts for session in part.sessions] == sessions
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    for part in parts:
        assert len(frames.control(part)) <= MAX_PRESENT_BYTES or len(part.sessions) == 1
        assert len(frames.control(part)) < frames.MAX_FRAME


def test_twenty_thousand_sessions_fit_into_few_frames():
    one = HeldSession(1 << 55, b"\2" * 33, INIT, "203.0.113.200:50000", 1 << 40, 1 << 40, 1 << 40)
    assert len(list(presented([one] * 20_000))) < 30
    assert Limits().session_window_bytes == 262_144


async def test_a_frontend_that_is_away_says_how_many_it_holds(site: Site):
    frontend = await site.open()
    await site.peer("ann")
    await site.peer("ben")
    await away(site)
    assert complaints(frontend)[0] == "backend away, 2 sessions held"
    counted = {s.name: s.value for family in gather(frontend) for s in family.samples if not s.labels}
    assert counted["lnnode_frontend_sessions_held"] == 2
    await site.backend.start()
    await presented_again(site)
    await until(lambda: not frontend.held)
    assert frontend.held == 0


async def test_a_drained_frontend_stays_drained_over_a_restart_of_the_backend(site: Site):
    frontend = await site.open()
    _, ready = await site.peer("ann")
    address = frontend.address
    site.backend.send(Drain(60.0))
    await until(lambda: frontend.draining)
    await away(site)
    site.backend.heard.clear()
    await site.backend.start()
    assert [session.number for session in await presented_again(site, 1)] == [ready.session]
    (status,) = await site.backend.heard.first(Status)  # at once, before anybody dials through it
    assert status.draining
    await until(lambda: frontend.gossip.current)
    assert await site.refuses(address)
    assert complaints(frontend) == ["draining, 1 sessions are left"]


async def test_a_frontend_goes_on_draining_while_the_backend_is_away(site: Site):
    frontend = await site.open()
    client, _ = await site.peer("ann")
    site.backend.send(Drain(0.1))
    await until(lambda: frontend.draining)
    await away(site)
    await client.closed()
    site.backend.heard.clear()
    await site.backend.start()
    assert await presented_again(site, 1) == []


async def test_a_session_that_was_dialled_directly_ends_with_the_next_backends_tor_only(site: Site):
    await site.open()
    came, _ = await site.peer("came")
    dialled = NoiseClient("dialled", None)
    site.clients.append(dialled)
    listener = await site.runtime.listen("127.0.0.1:0", lambda: dialled)
    site.backend.dial(5, dialled.node_id, listener.address)
    await dialled.established()
    dialled.send(INIT)
    await site.backend.ready(2)
    await away(site)

    site.backend.dialling = Dialling("127.0.0.1:9", ipv4="proxy", ipv6="proxy", dns="proxy", only=True)
    await site.backend.start()
    assert [session.node_id for session in await presented_again(site)] == [came.node_id]
    await dialled.closed()
    listener.close()
