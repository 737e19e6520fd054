"""A peer that means harm: whatever it sends, it ends its own session or fails its own channel, and nothing else notices."""

import asyncio

import pytest
from backend_bench import CONFIG, Bench, assert_agree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from node.backend.identity import FEATURES
from node.backend.openings import OPEN_TIMEOUT_S
from node.channel import events as ev
from node.channel.model import Phase
from node.link import frames
from node.link import messages as lm
from node.wire import bolt1, bolt2, codec
from node.wire.codec import BY_NUMBER

INIT = codec.encode(bolt1.Init(b"", FEATURES.to_bytes()))


@pytest.fixture
async def bench(chain, tmp_path):
    made = await Bench(tmp_path / "node", chain).start()
    yield made
    assert not made.runtime.failures, "no task of the backend died"
    await made.drop()


def rows(bench, what="count(*)"):
    return bench.backend.store.rows(f"SELECT {what} FROM channels")


def open_channel(bench, peer, temporary_channel_id=None):
    """An open_channel that would be accepted."""
    peer.open(bench.backend.node_id)
    message = codec.decode(peer.outbox.pop())
    peer.outbox.clear()
    if temporary_channel_id is not None:
        message = replace(message, temporary_channel_id=temporary_channel_id)
    return message


# which session counts


async def test_the_newest_session_of_a_peer_wins(bench):
    first, second, peer = bench.frontend("f1"), bench.frontend("f2"), bench.peer("alice")
    old = await bench.connect(peer, first)
    await bench.open_from(peer)
    peer.place = None
    for half in peer.halves:
        peer.do(half, ev.Disconnected())
    new = await bench.connect(peer, second)
    await bench.settle()
    assert first.last(lm.CloseSession).session == old
    assert bench.backend.switchboard.session_of(peer.node_id).number == new
    assert bench.record(peer).channel.is_usable
    assert_agree(bench.record(peer), peer.half)


async def test_a_stale_sessions_messages_and_its_end_are_ignored(bench):
    first, second, peer = bench.frontend("f1"), bench.frontend("f2"), bench.peer("alice")
    old = await bench.connect(peer, first)
    await bench.open_from(peer)
    peer.disconnect()
    await bench.connect(peer, second)
    await bench.settle()
    first.message(old, codec.encode(bolt1.Error(bolt1.ALL_CHANNELS, b"away with them")))
    first.tell(lm.SessionEnded(old, "late"))
    await bench.settle()
    assert bench.record(peer).channel.phase is Phase.NORMAL
    assert bench.record(peer).channel.is_usable


async def test_a_frontend_that_dies_takes_its_sessions_along_and_they_come_back_elsewhere(bench):
    first, peer = bench.frontend("f1"), bench.peer("alice")
    await bench.connect(peer, first)
    await bench.open_from(peer)
    first.lose()
    await bench.settle()
    assert not bench.record(peer).channel.is_usable
    assert bench.backend.switchboard.session_of(peer.node_id) is None
    await bench.connect(peer, bench.frontend("f2"))
    await bench.settle()
    assert bench.record(peer).channel.is_usable


async def test_a_frontend_that_starts_anew_replaces_itself(bench):
    first = bench.frontend("f1")
    second = bench.frontend("f1")
    assert first.wire.closed
    first.lose()
    assert bench.backend.switchboard.links == {"f1": second.link}


# limits


async def test_peers_without_channels_have_a_bounded_number_of_places(chain, tmp_path):
    config = replace(CONFIG, max_peers_without_channels=2)
    bench = await Bench(tmp_path / "node", chain, config).start()
    frontend = bench.frontend()
    friend = bench.peer("friend")
    await bench.connect(friend, frontend)
    await bench.open_from(friend)
    numbers = [await bench.connect(bench.peer(f"stranger {n}"), frontend) for n in range(4)]
    await bench.settle()
    assert [each.session for each in frontend.heard(lm.CloseSession)] == numbers[:2]
    assert bench.backend.switchboard.session_of(friend.node_id) is not None
    assert len(bench.backend.switchboard.peers) == 3
    await bench.drop()


async def test_pending_channels_of_one_peer_are_bounded(bench):
    frontend, peer = bench.frontend(), bench.peer("mallory")
    number = await bench.connect(peer, frontend)
    for n in range(CONFIG.max_pending_per_peer + 3):
        frontend.message(number, codec.encode(open_channel(bench, peer, bytes([n + 1]) * 32)))
    await bench.settle()
    assert len(bench.backend.channels.by_id) == CONFIG.max_pending_per_peer
    assert sum(isinstance(message, bolt1.Error) for message in peer.heard) == 3
    assert rows(bench) == [(0,)], "nothing is stored of what may never exist"


async def test_pending_channels_of_all_peers_are_bounded(bench):
    frontend = bench.frontend()
    for n in range(CONFIG.max_pending + 2):
        peer = bench.peer(f"mallory {n}")
        number = await bench.connect(peer, frontend)
        frontend.message(number, codec.encode(open_channel(bench, peer)))
    await bench.settle()
    assert len(bench.backend.channels.by_id) == CONFIG.max_pending


async def test_a_channel_never_funded_leaves_nothing_behind(bench):
    frontend, peer = bench.frontend(), bench.peer("mallory")
    number = await bench.connect(peer, frontend)
    frontend.message(number, codec.encode(open_channel(bench, peer)))
    await bench.settle()
    frontend.tell(lm.SessionEnded(number, "gone"))
    await bench.settle()
    assert not bench.backend.channels.by_id
    assert not bench.backend.channels.by_peer
    assert not bench.backend.switchboard.peers
    assert rows(bench) == [(0,)]


# ids


async def test_a_temporary_id_that_names_somebody_elses_channel_is_refused(bench):
    """Permanent ids follow from funding outputs, which everybody can see on the chain."""
    frontend, alice, mallory = bench.frontend(), bench.peer("alice"), bench.peer("mallory")
    await bench.connect(alice, frontend)
    number = await bench.connect(mallory, frontend)
    await bench.open_from(alice)
    victim = bench.record(alice)
    frontend.message(number, codec.encode(open_channel(bench, mallory, victim.channel.channel_id)))
    await bench.settle()
    assert bench.backend.channels.by_id[victim.channel.channel_id] is victim
    frontend.tell(lm.SessionEnded(number, "gone"))
    await bench.settle()
    assert bench.backend.channels.by_id[victim.channel.channel_id] is victim
    assert rows(bench, "channel_id") == [(victim.channel.channel_id,)]


async def test_two_peers_with_one_temporary_id_do_not_meet(bench):
    frontend, mallory, trudy = bench.frontend(), bench.peer("mallory"), bench.peer("trudy")
    for peer in (mallory, trudy):
        number = await bench.connect(peer, frontend)
        frontend.message(number, codec.encode(open_channel(bench, peer, b"\7" * 32)))
    await bench.settle()
    assert [record.node_id for record in bench.backend.channels.by_id.values()] == [mallory.node_id]
    assert any(isinstance(message, bolt1.Error) for message in trudy.heard)


async def test_another_peers_channel_can_not_be_named(bench):
    frontend, alice, mallory = bench.frontend(), bench.peer("alice"), bench.peer("mallory")
    await bench.connect(alice, frontend)
    number = await bench.connect(mallory, frontend)
    await bench.open_from(alice)
    channel_id = bench.record(alice).channel.channel_id
    for message in (bolt1.Error(channel_id, b"die"), bolt2.UpdateFailHtlc(channel_id, 0, b""), bolt2.UpdateFee(channel_id, 300)):  # fmt: skip
        frontend.message(number, codec.encode(message))
    await bench.settle()
    assert bench.record(alice).channel.phase is Phase.NORMAL
    assert bench.record(alice).channel.is_usable
    assert any(isinstance(message, bolt1.Error) for message in mallory.heard)


async def test_an_error_for_all_channels_fails_those_of_its_sender_alone(bench):
    frontend, alice, bob = bench.frontend(), bench.peer("alice"), bench.peer("bob")
    number = await bench.connect(alice, frontend)
    await bench.connect(bob, frontend)
    await bench.open_from(alice)
    await bench.open_from(bob)
    frontend.message(number, codec.encode(bolt1.Error(bolt1.ALL_CHANNELS, b"goodbye")))
    await bench.settle()
    assert bench.record(bob).channel.phase is Phase.NORMAL
    assert bench.record(alice).channel.phase is not Phase.NORMAL


# bytes


@pytest.mark.parametrize("raw", [b"\0\x80", b"\0\x80" + bytes(30), b"\0\x21" + bytes(5)])
async def test_undecodable_bytes_are_answered_with_a_warning_and_the_session_ends(bench, raw):
    frontend, mallory, alice = bench.frontend(), bench.peer("mallory"), bench.peer("alice")
    number = await bench.connect(mallory, frontend)
    await bench.connect(alice, frontend)
    await bench.settle()
    frontend.message(number, raw)
    await bench.settle()
    closed = frontend.last(lm.CloseSession)
    assert closed.session == number
    assert isinstance(codec.decode(closed.message), bolt1.Warning)
    assert bench.backend.switchboard.session_of(mallory.node_id) is None
    assert bench.backend.switchboard.session_of(alice.node_id) is not None
    assert not frontend.wire.closed


async def test_an_init_that_can_not_be_read_ends_the_session(bench):
    frontend, peer = bench.frontend(), bench.peer("mallory")
    number = await bench.handshake(peer, frontend)
    frontend.tell(lm.SessionReady(number, b"\0\x10\xff", "x"))
    assert frontend.last(lm.CloseSession).session == number
    assert not bench.backend.switchboard.peers


async def test_what_is_received_is_acknowledged_only_when_it_is_durable(bench):
    frontend, peer = bench.frontend(), bench.peer("alice")
    number = await bench.connect(peer, frontend)
    await bench.open_from(peer)
    frontend.take()
    frontend.controls.clear()
    commits_at, commits, commit = [], bench.backend.store.commits, bench.backend.store.commit
    write = frontend.wire.write

    def observe(data):
        if data[4] == frames.CONTROL and isinstance(frames.decode_to_frontend(data[5:]), lm.Acks):
            commits_at.append(bench.backend.store.commits - commits)
        write(data)

    def meanwhile(statements):
        bench.backend.store.commit = commit
        frontend.message(number, codec.encode(bolt2.UpdateFee(bench.record(peer).channel.channel_id, 2_600)))
        bench.backend.journal.write("INSERT INTO meta VALUES ('y', x'00')")
        commit(statements)

    frontend.wire.write = observe
    bench.backend.store.commit = meanwhile
    bench.backend.journal.write("INSERT INTO meta VALUES ('x', x'00')")
    await bench.settle()
    assert commits_at == [2], "not with the transaction that was under way when it came"


class FaultOfOursError(AssertionError):
    """A fault of ours in one channel."""


@pytest.mark.parametrize("event", [ev.Connected, ev.Disconnected, ev.Sign, ev.Block])
async def test_a_fault_of_ours_in_one_channel_leaves_the_others_alone(bench, event):
    frontend, alice, bob = bench.frontend(), bench.peer("alice"), bench.peer("bob")
    await bench.connect(alice, frontend)
    await bench.connect(bob, frontend)
    await bench.open_from(alice)
    await bench.open_from(bob)
    sick, apply = bench.record(alice), bench.backend.channels.apply

    def faulty(record, happened):
        if record is sick and isinstance(happened, event):
            raise FaultOfOursError
        return apply(record, happened)

    bench.backend.channels.apply = faulty
    alice.do(alice.half, ev.UpdateFee(2_700))
    await bench.settle()
    bench.chain.mine(1)
    await bench.settle()
    frontend.lose()
    await bench.settle()
    second = bench.frontend("f2")
    await bench.connect(alice, second)
    await bench.connect(bob, second)
    await bench.settle()
    assert not second.wire.closed
    assert bench.record(bob).channel.is_usable
    assert bench.record(bob).channel.height == bench.chain.chain.height


MESSAGES = st.one_of(
    st.binary(min_size=2, max_size=200),
    st.tuples(st.sampled_from(sorted(BY_NUMBER)), st.sampled_from([0, 1, 2]), st.binary(max_size=150)),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES, min_size=1, max_size=8))
def test_no_series_of_messages_gets_an_exception_out(shared, series):
    run, bench, alice = shared

    async def feed():
        frontend, mallory = bench.frontends[0], bench.peer("mallory")
        number = await bench.connect(mallory, frontend)
        await bench.settle()
        for each in series:
            if isinstance(each, tuple):
                kind, which, rest = each
                ids = (bench.record(alice).channel.channel_id, bytes(32), b"\7" * 32)
                each = kind.to_bytes(2, "big") + ids[which] + rest  # noqa: PLW2901 - the bytes it stands for
            if each:
                frontend.message(number, each)
        await bench.settle()
        assert not bench.runtime.failures
        assert not frontend.wire.closed
        assert bench.record(alice).channel.is_usable
        frontend.tell(lm.SessionEnded(number, "done"))
        await bench.settle()
        bench.peers.remove(mallory)

    run(feed())


@pytest.fixture
def shared(chain, tmp_path):
    with asyncio.Runner() as runner:
        bench = runner.run(Bench(tmp_path / "node", chain).start())

        async def prepare():
            frontend, alice = bench.frontend(), bench.peer("alice")
            await bench.connect(alice, frontend)
            await bench.open_from(alice)
            return alice

        yield runner.run, bench, runner.run(prepare())
        runner.run(bench.drop())


async def test_who_opens_a_channel_and_says_nothing_more_gives_up_its_place(bench):
    frontend, peer = bench.frontend(), bench.peer("mallory")
    number = await bench.connect(peer, frontend)
    frontend.message(number, codec.encode(open_channel(bench, peer)))
    await bench.settle()
    bench.runtime.time_s += OPEN_TIMEOUT_S - 1
    bench.backend.openings.sweep()
    assert len(bench.backend.channels.by_id) == 1
    bench.runtime.time_s += 2
    bench.backend.openings.sweep()
    await bench.settle()
    assert not bench.backend.channels.by_id
    assert isinstance(peer.heard[-1], bolt1.Error)
    assert bench.backend.switchboard.session_of(peer.node_id) is not None
