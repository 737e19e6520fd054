"""BOLT 2, normal operation, as two channels live it."""

import pytest
from channel_pair import ANCHORS, STATIC, Pair, assert_agree, preimage

from node.channel import effects as fx
from node.channel.events import Sign, UpdateFee
from node.channel.model import Phase, State


@pytest.fixture(params=[ANCHORS, STATIC], ids=["anchors", "static_remotekey"])
def pair(request):
    return Pair().ready(request.param)


def test_a_payment_goes_through_and_leaves_nothing_behind(pair):
    alice, bob = pair.ends
    htlc_id = pair.add(alice, 10_000_000)
    pair.settle()
    assert [effect.htlc.id for effect in bob.told(fx.HtlcReady)] == [htlc_id]
    assert alice.channel.offered[htlc_id].state is State.COMMITTED
    assert bob.channel.received[htlc_id].state is State.COMMITTED
    pair.fulfill(bob, htlc_id)
    pair.settle()
    assert alice.told(fx.HtlcFulfilled) == [fx.HtlcFulfilled(htlc_id, preimage(1))]
    assert bob.told(fx.HtlcSettled) == [fx.HtlcSettled(htlc_id, fulfilled=True)]
    assert not alice.channel.offered
    assert not bob.channel.received
    assert alice.channel.local_msat == 590_000_000
    assert bob.channel.local_msat == 410_000_000
    assert_agree(pair)


def test_the_dance_is_that_of_the_bolt(pair):
    pair.transcript.clear()
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.fulfill(pair.bob, htlc_id)
    pair.settle()
    dance = """
        alice: UpdateAddHtlc
        alice: CommitmentSigned
        bob: RevokeAndAck
        bob: CommitmentSigned
        alice: RevokeAndAck
        bob: UpdateFulfillHtlc
        bob: CommitmentSigned
        alice: RevokeAndAck
        alice: CommitmentSigned
        bob: RevokeAndAck
    """
    assert pair.transcript == [line.strip() for line in dance.strip().splitlines()]


def test_a_preimage_is_told_before_anything_is_committed(pair):
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.auto_sign = False
    pair.fulfill(pair.bob, htlc_id)
    pair.deliver(pair.bob)
    assert pair.alice.told(fx.HtlcFulfilled)


def test_a_failure_is_told_only_once_it_cannot_be_undone(pair):
    alice, bob = pair.ends
    htlc_id = pair.add(alice)
    pair.settle()
    pair.fail(bob, htlc_id)
    pair.settle(until=lambda: "alice: RevokeAndAck" in pair.transcript[-1:])
    assert not alice.told(fx.HtlcFailed)
    pair.settle()
    assert alice.told(fx.HtlcFailed) == [fx.HtlcFailed(htlc_id, b"reason")]
    assert alice.channel.local_msat == 600_000_000
    assert_agree(pair)


def test_both_add_at_once(pair):
    alice, bob = pair.ends
    for seed in range(5):
        pair.add(alice, 1_000_000 + seed, seed)
        pair.add(bob, 2_000_000 + seed, seed)
    pair.settle()
    assert len(alice.told(fx.HtlcReady)) == len(bob.told(fx.HtlcReady)) == 5
    assert_agree(pair)
    for seed in range(5):
        pair.fulfill(bob, seed, seed)
        pair.fail(alice, seed)
    pair.settle()
    assert len(alice.told(fx.HtlcFulfilled)) == len(bob.told(fx.HtlcFailed)) == 5
    assert_agree(pair)


def test_the_opener_changes_the_fee_rate_and_an_unsigned_one_is_replaced(pair):
    pair.auto_sign = False
    for rate in (3_000, 3_500, 4_000):
        pair.alice.do(UpdateFee(rate))
    assert pair.alice.channel.feerates[State.ADD_SENT] == 4_000
    pair.auto_sign = True
    pair.settle()
    assert [end.channel.feerates for end in pair.ends] == [{State.COMMITTED: 4_000}] * 2
    assert_agree(pair)


def test_sign_without_changes_sends_nothing(pair):
    assert pair.alice.do(Sign()) == ()
    pair.add(pair.alice)
    pair.alice.do(Sign())
    assert not pair.alice.channel.wants_to_sign
    assert pair.alice.do(Sign()) == ()


def test_after_all_the_channel_is_normal_and_quiet(pair):
    assert all(end.channel.is_quiet and end.channel.phase is Phase.NORMAL for end in pair.ends)
    pair.add(pair.alice)
    assert not pair.alice.channel.is_quiet
