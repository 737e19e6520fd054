"""A quiet channel whose peer's session is held while the backend is away: silent, then as if nothing had been."""

import pytest
from channel_pair import ANCHORS, FEERATES, Pair, assert_agree, preimage

from node.channel.events import (
    Add,
    Adopted,
    Block,
    Connected,
    Disconnected,
    ForceClose,
    Fulfill,
    Held,
    Received,
    Restored,
    Shutdown,
    UpdateFee,
)
from node.channel.model import Link, Phase, State, decode, encode
from node.wire import bolt1, bolt2


@pytest.fixture
def pair() -> Pair:
    return Pair().ready(ANCHORS)


def test_a_quiet_channel_is_held_and_goes_on_without_a_word(pair):
    before = pair.alice.channel
    pair.alice.do(Held())
    assert pair.alice.channel.link is Link.HELD
    assert pair.alice.channel.is_quiet
    pair.alice.channel = decode(encode(pair.alice.channel))
    assert pair.alice.do(Adopted()) == ()
    assert pair.alice.channel == before
    for payer, payee in (pair.ends, pair.ends[::-1]):
        htlc_id = pair.add(payer, 5_000_000)
        pair.settle()
        pair.fulfill(payee, htlc_id)
        pair.settle()
    assert_agree(pair)


def test_what_came_out_of_an_older_copy_is_not_held_before_the_peer_has_shown_where_it_stands(pair):
    pair.alice.do(Restored())
    assert not pair.alice.channel.is_quiet
    pair.alice.do(Held())
    assert pair.alice.channel.link is Link.OFFLINE


def test_nothing_is_said_or_heard_while_it_is_held(pair):
    htlc_id = pair.add(pair.bob, 5_000_000)
    pair.settle()
    pair.alice.do(Held())
    held = pair.alice.channel
    (refused,) = pair.alice.do(Add(1, 1_000, bytes(32), 900_000, bytes(1366)))
    assert "held" in refused.error
    assert pair.alice.do(UpdateFee(5_000)) == ()
    assert pair.alice.do(Received(bolt2.UpdateFee(held.channel_id, 3_000))) == ()
    assert pair.alice.channel == held
    pair.alice.do(Fulfill(htlc_id, preimage(1)))
    assert pair.alice.channel.is_quiet
    assert not pair.alice.outbox
    pair.alice.do(Adopted())
    assert len(pair.alice.outbox) == 1
    pair.settle()
    assert_agree(pair)
    assert not pair.alice.channel.received


def test_a_close_asked_for_meanwhile_begins_when_it_is_adopted(pair):
    pair.alice.do(Held())
    pair.alice.do(Shutdown(1, b"", FEERATES))
    assert not pair.alice.outbox
    pair.alice.do(Adopted())
    pair.settle()
    assert {end.channel.phase for end in pair.ends} == {Phase.CLOSING}


def test_a_channel_that_failed_meanwhile_says_so_when_it_is_adopted(pair):
    pair.alice.do(Held())
    pair.alice.do(ForceClose(1, "enough"))
    pair.alice.outbox.clear()  # nobody was there to be told
    pair.alice.do(Adopted())
    assert [error.data for error in pair.alice.sent(bolt1.Error)] == [b"enough"] * 2
    assert pair.alice.channel.link is Link.ONLINE


def test_blocks_pass_while_it_is_held(pair):
    pair.alice.do(Held())
    pair.alice.do(Block(pair.alice.channel.height + 3))
    assert pair.alice.channel.link is Link.HELD


def test_what_is_not_quiet_is_not_held(pair):
    pair.auto_sign = False
    pair.add(pair.alice, 5_000_000)
    assert not pair.alice.channel.is_quiet
    pair.alice.do(Held())
    assert pair.alice.channel.link is Link.OFFLINE
    assert not pair.alice.channel.offered


@pytest.mark.parametrize("event", [Disconnected(), None])
def test_a_held_channel_whose_peer_noticed_is_reestablished(pair, event):
    pair.add(pair.bob, 5_000_000)
    pair.settle()
    pair.alice.do(Held())
    pair.bob.do(Disconnected())
    if event is not None:
        pair.alice.do(event)
    for end in pair.ends:
        end.do(Connected(pair.features))
    pair.settle()
    assert {end.channel.link for end in pair.ends} == {Link.ONLINE}
    assert [htlc.state for htlc in pair.alice.channel.received.values()] == [State.COMMITTED]
    assert_agree_on_number(pair)


def assert_agree_on_number(pair):
    one, two = (end.channel for end in pair.ends)
    assert one.local_commit.number == two.remote_commit.number
    assert two.local_commit.number == one.remote_commit.number


def test_a_channel_is_not_quiet_while_it_opens_or_closes():
    pair = Pair().open(ANCHORS)
    assert not pair.alice.channel.is_quiet
    pair.settle()
    assert all(end.channel.phase is Phase.FUNDING_CONFIRMED and end.channel.is_quiet for end in pair.ends)
    pair.confirm()
    pair.settle()
    pair.alice.do(Shutdown(1, b"", FEERATES))
    assert not pair.alice.channel.is_quiet
    pair.settle()
    assert not pair.alice.channel.is_quiet
