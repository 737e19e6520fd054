"""Who may present what: the peer's newest session, through the frontend that it came in by, once."""

import pytest
from backend_bench import Bench, Frontend, Peer

from node.backend import switchboard
from node.channel.model import Link
from node.link import messages as lm
from node.wire import bolt1, codec
from node.wire.bolt2 import ChannelReestablish

INIT = codec.encode(bolt1.Init(b"", b""))


@pytest.fixture
async def bench(chain, tmp_path):
    made = await Bench(tmp_path / "node", chain).start()
    yield made
    assert not made.runtime.failures, "no task of the backend died"
    await made.drop()


class Held:
    """A peer with a channel whose session's link was lost, and what its frontend knows of it."""

    def __init__(self, bench: Bench, peer: Peer, number: int, sent: int, received: int) -> None:
        self.bench, self.peer = bench, peer
        self.session = lm.HeldSession(number, peer.node_id, INIT, "203.0.113.1:9735", sent, sent, received)

    @property
    def channel(self):
        return self.bench.record(self.peer).channel


async def lost(bench: Bench, name: str = "f1") -> Held:
    """Through one frontend; then its link breaks, and the peer does not notice."""
    frontend, peer = bench.frontend(name, protocol=2), bench.peer("alice")
    number = await bench.connect(peer, frontend)
    await bench.open_from(peer)
    session = bench.backend.switchboard.session_of(peer.node_id)
    held = Held(bench, peer, number, frontend.sequences[number], session.decided)
    leave(frontend)
    await bench.settle()
    return held


def leave(frontend: Frontend) -> None:
    frontend.wire.closed = True
    frontend.sessions.clear()
    frontend.link.connection_lost(None)


async def present(held: Held, name: str = "f1", session: lm.HeldSession | None = None) -> Frontend:
    frontend = held.bench.frontend(name, protocol=2)
    frontend.sessions[held.session.number] = held.peer
    frontend.sequences[held.session.number] = held.session.sent
    frontend.tell(lm.Present((session or held.session,), last=True))
    await held.bench.settle()
    frontend.take()
    return frontend


async def test_a_session_whose_link_broke_goes_on_through_the_next(bench):
    held = await lost(bench)
    assert held.channel.link is Link.HELD
    assert bench.backend.switchboard.session_of(held.peer.node_id) is None
    before = len(held.peer.heard)
    frontend = await present(held)
    assert frontend.heard(lm.Adopted) == [lm.Adopted(((held.session.number, held.session.sent),))]
    assert held.channel.link is Link.ONLINE
    assert len(held.peer.heard) == before, "the peer heard nothing of it"
    assert bench.backend.switchboard.session_of(held.peer.node_id).name == f"f1/{held.session.number}"


async def test_after_a_restart_it_goes_on_as_well(bench):
    held = await lost(bench)
    place = held.peer.place
    held.peer.place = None  # what the peer knows is not touched
    await bench.drop()
    await bench.start()
    held.peer.place = place
    assert held.channel.link is Link.HELD
    frontend = await present(held)
    assert frontend.heard(lm.Adopted)
    assert held.channel.link is Link.ONLINE


async def test_a_frontend_presents_nothing_that_came_in_by_another(bench):
    """Security: a frontend that is taken over speaks for no peer that did not shake hands through it."""
    held = await lost(bench)
    frontend = await present(held, "f2")
    assert not frontend.heard(lm.Adopted)
    assert [each.cause for each in frontend.heard(lm.CloseSession)] == ["not the newest session"]
    assert held.channel.link is Link.HELD, "its own frontend may still come"
    assert (await present(held)).heard(lm.Adopted)


@pytest.mark.parametrize("change", ["node_id", "number", "received", "sent", "acked"])
async def test_a_session_that_is_not_as_it_was_is_closed(bench, change):
    held = await lost(bench)
    changed = {
        "node_id": {"node_id": bench.peer("mallory").node_id},
        "number": {"number": held.session.number + 1},
        "received": {"received": held.session.received + 1},
        "sent": {"sent": held.session.sent - 1, "acked": held.session.sent - 1},
        "acked": {"acked": held.session.acked + 1, "sent": held.session.sent + 1},
    }[change]
    frontend = await present(held, session=_replaced(held.session, **changed))
    assert not frontend.heard(lm.Adopted)
    assert len(frontend.heard(lm.CloseSession)) == 1
    assert held.channel.link is Link.OFFLINE, "nobody else will present it"
    assert not (await present(held)).heard(lm.Adopted)


def _replaced(session: lm.HeldSession, **changes) -> lm.HeldSession:
    fields = {name: getattr(session, name) for name in session.__struct_fields__}
    return lm.HeldSession(**fields | changes)


async def test_a_peer_that_came_in_elsewhere_meanwhile_has_left_the_older_one(bench):
    held = await lost(bench)
    held.peer.disconnect()
    other = bench.frontend("f2", protocol=2)
    number = await bench.connect(held.peer, other)
    await bench.settle()
    assert held.channel.link is Link.ONLINE
    frontend = await present(held)
    assert [each.cause for each in frontend.heard(lm.CloseSession)] == ["not held"]
    assert bench.backend.switchboard.session_of(held.peer.node_id).name == f"f2/{number}"
    assert held.channel.link is Link.ONLINE


async def test_a_frontend_that_comes_back_before_its_old_link_is_known_to_be_lost_brings_its_sessions(bench):
    frontend, peer = bench.frontend(protocol=2), bench.peer("alice")
    number = await bench.connect(peer, frontend)
    await bench.open_from(peer)
    session = bench.backend.switchboard.session_of(peer.node_id)
    held = Held(bench, peer, number, frontend.sequences[number], session.decided)
    again = await present(held)
    assert again.heard(lm.Adopted)
    assert frontend.wire.closed
    frontend.link.connection_lost(None)
    assert held.channel.link is Link.ONLINE


async def test_a_frontend_that_holds_nothing_ends_the_waiting(bench):
    held = await lost(bench)
    bench.frontend("f2", protocol=2).tell(lm.Present((), last=True))
    assert held.channel.link is Link.HELD
    bench.frontend("f1", protocol=2).tell(lm.Present((), last=True))
    assert held.channel.link is Link.OFFLINE


async def test_a_frontend_of_a_release_before_ends_the_waiting(bench):
    held = await lost(bench)
    bench.frontend("f1", protocol=1)
    assert held.channel.link is Link.OFFLINE


async def test_nobody_is_waited_for_longer_than_it_takes_a_frontend_to_come_back(bench, monkeypatch):
    monkeypatch.setattr(switchboard, "HELD_TIMEOUT_S", 0.0)
    held = await lost(bench)
    assert held.channel.link is Link.HELD
    bench.backend.switchboard.sweep()
    await bench.settle()
    assert held.channel.link is Link.OFFLINE
    assert not (await present(held)).heard(lm.Adopted)


async def test_a_held_peer_that_was_not_adopted_reestablishes(bench):
    held = await lost(bench)
    frontend = await present(held, session=_replaced(held.session, received=0))
    held.peer.disconnect()
    await bench.connect(held.peer, frontend)
    await bench.settle()
    assert held.channel.link is Link.ONLINE
    assert any(isinstance(message, ChannelReestablish) for message in held.peer.heard)


async def test_an_init_that_is_none_is_not_adopted(bench):
    held = await lost(bench)
    frontend = await present(held, session=_replaced(held.session, init=b"\x00"))
    assert not frontend.heard(lm.Adopted)
    assert held.channel.link is Link.OFFLINE


async def test_a_peer_without_channels_goes_on_too_and_one_that_was_opening_one_does_not(bench):
    frontend, idle, opener = bench.frontend(protocol=2), bench.peer("idle"), bench.peer("opener")
    numbers = {peer: await bench.connect(peer, frontend) for peer in (idle, opener)}
    opener.open(bench.backend.node_id)
    await bench.settle()
    leave(frontend)
    again = bench.frontend(protocol=2)
    for peer, number in numbers.items():
        sent = frontend.sequences.get(number, 0)
        session = lm.HeldSession(number, peer.node_id, INIT, "", sent, sent, len(peer.heard))
        again.tell(lm.Present((session,)))
    again.take()
    assert again.heard(lm.Adopted) == [lm.Adopted(((numbers[idle], 0),))]
    assert [each.session for each in again.heard(lm.CloseSession)] == [numbers[opener]]
