"""BOLT 2's limits, for what we send (refused) and for what the peer sends (the channel fails)."""

import msgspec
import pytest
from channel_pair import ANCHORS, HEIGHT, ONION, STATIC, End, Pair, assert_agree, params, preimage

from node.bitcoin.fees import opener_cost_sat
from node.channel import effects as fx
from node.channel import limits, views
from node.channel.events import Add, Fail, FailMalformed, Fulfill, Received, Sign, UpdateFee
from node.channel.model import Phase, State
from node.channel.parameters import Policy
from node.channel.revoked import decode as decode_revoked
from node.crypto.hashes import sha256
from node.wire import bolt2

GOOD = Add(9, 1_000_000, sha256(preimage(1)), HEIGHT + 100, ONION)


def replace(value, **changes):
    return msgspec.structs.replace(value, **changes)


def refused(end, event):
    before = end.channel
    (reply,) = end.do(event)
    assert end.channel == before
    return reply.error


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_msat": 0},
        {"amount_msat": 999},
        {"amount_msat": 600_000_000},
        {"cltv_expiry": HEIGHT},
        {"cltv_expiry": HEIGHT + 5_000},
        {"cltv_expiry": 500_000_000},
        {"onion": b"short"},
        {"payment_hash": b"short"},
    ],
    ids=str,
)
def test_an_htlc_out_of_bounds_is_refused(changes):
    pair = Pair().ready(bob=params("bob", htlc_minimum_msat=1_000))
    assert refused(pair.alice, replace(GOOD, **changes))


def test_limits_of_the_peer_bind_us():
    pair = Pair().ready(bob=params("bob", max_accepted_htlcs=3, max_htlc_value_in_flight_msat=10_000_000))
    assert "in flight" in refused(pair.alice, replace(GOOD, amount_msat=10_000_001))
    for seed in range(3):
        pair.add(pair.alice, 3_000_000, seed)
    assert "no more" in refused(pair.alice, GOOD)
    pair.settle()
    assert "no more" in refused(pair.alice, GOOD)
    assert limits.spendable_msat(pair.alice.channel, pair.alice.policy) == 0


@pytest.mark.parametrize("channel_type", [ANCHORS, STATIC], ids=["anchors", "static_remotekey"])
def test_the_opener_keeps_its_reserve_and_the_fee_of_one_htlc_more_at_twice_the_rate(channel_type):
    pair = Pair().ready(channel_type)
    cost_sat = opener_cost_sat(channel_type.anchors, 2 * 2_500, 2)
    most_msat = (600_000 - 10_000 - cost_sat) * 1_000
    assert "balance" in refused(pair.alice, replace(GOOD, amount_msat=most_msat + 1))
    pair.add(pair.alice, most_msat)
    pair.settle()
    assert_agree(pair)
    assert limits.spendable_msat(pair.alice.channel, pair.alice.policy) == 0


def test_the_accepter_keeps_its_reserve_and_lets_the_opener_pay():
    pair = Pair().ready()
    assert "balance" in refused(pair.bob, replace(GOOD, amount_msat=390_000_001))
    pair.add(pair.bob, 390_000_000)
    pair.settle()
    assert_agree(pair)
    poor = Pair().ready(push_msat=987_000_000)
    assert "could not pay" in refused(poor.bob, GOOD)
    assert limits.spendable_msat(poor.bob.channel, poor.bob.policy) == 0


@pytest.mark.parametrize("amount_msat", [1_000_000, 100_000])
def test_spendable_is_what_can_be_offered(amount_msat):
    pair = Pair().ready()
    for end in pair.ends:
        spendable_msat = limits.spendable_msat(end.channel, end.policy)
        receivable_msat = limits.receivable_msat(pair.other(end).channel)
        assert spendable_msat <= receivable_msat
        pair.add(end, spendable_msat)
        pair.settle()
    assert_agree(pair)


def test_dust_is_bounded_when_offered_and_to_be_failed_when_received():
    pair = Pair(alice=End("alice", Policy(max_dust_exposure_msat=500_000))).ready()
    pair.add(pair.alice, 300_000)
    assert "dust" in refused(pair.alice, replace(GOOD, amount_msat=300_000))
    pair.add(pair.bob, 300_000)
    pair.add(pair.bob, 350_000)
    pair.add(pair.bob, 400_000_000 // 2)
    pair.settle()
    ready = [effect.htlc.must_fail for effect in pair.alice.told(fx.HtlcReady)]
    assert ready == [True, True, False]


def test_a_fee_rate_that_turns_too_much_into_dust_is_not_asked_for_and_not_accepted():
    careful = Policy(max_dust_exposure_msat=5_000_000)
    pair = Pair(alice=End("alice", careful), bob=End("bob", careful)).ready(STATIC)
    for seed in range(4):
        pair.add(pair.alice, 5_000_000, seed)
    pair.settle()
    assert pair.alice.do(UpdateFee(20_000)) == ()
    pair.bob.do(Received(bolt2.UpdateFee(pair.bob.channel.channel_id, 20_000)))
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED


def test_dust_that_the_opener_cannot_know_of_is_not_held_against_it():
    careful = Policy(max_dust_exposure_msat=5_500_000)
    pair = Pair(alice=End("alice", careful), bob=End("bob", careful)).ready(STATIC)
    pair.add(pair.alice, 5_000_000)
    pair.settle()
    pair.auto_sign = False
    pair.add(pair.bob, 1_000_000)
    pair.alice.do(UpdateFee(9_000))
    pair.deliver(pair.alice)
    assert pair.bob.channel.phase is Phase.NORMAL
    assert pair.bob.channel.feerates[State.ADD_SENT] == 9_000


def test_a_fee_rate_that_cannot_be_paid_is_not_asked_for():
    pair = Pair().ready(push_msat=980_000_000)
    assert pair.alice.do(UpdateFee(90_000)) == ()
    assert pair.bob.do(UpdateFee(3_000)) == ()


def faults(pair, message, *, at="bob"):
    end = getattr(pair, at)
    effects = end.do(Received(message))
    assert end.channel.phase is Phase.FORCE_CLOSED
    assert [type(e) for e in effects[:3]] == [fx.Store, fx.Send, fx.Publish]
    return end.channel.failure


def add_message(pair, **changes):
    channel_id = pair.bob.channel.channel_id
    good = bolt2.UpdateAddHtlc(channel_id, 0, 1_000_000, sha256(preimage(1)), HEIGHT + 100, ONION)
    return replace(good, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 1},
        {"amount_msat": 0},
        {"amount_msat": 999},
        {"amount_msat": 1 << 63},
        {"amount_msat": 11_000_000},
        {"cltv_expiry": 500_000_000},
    ],
    ids=str,
)
def test_an_htlc_that_must_not_be_offered_fails_the_channel(changes):
    pair = Pair().ready(bob=params("bob", htlc_minimum_msat=1_000, max_htlc_value_in_flight_msat=10_000_000))
    faults(pair, add_message(pair, **changes))


def test_an_htlc_that_the_peer_cannot_afford_fails_the_channel():
    pair = Pair().ready()
    cost_sat = opener_cost_sat(anchors=True, feerate_per_kw=2_500, untrimmed_count=1)
    most_msat = (600_000 - 10_000 - cost_sat) * 1_000
    assert "afford" in faults(pair, add_message(pair, amount_msat=most_msat + 1))
    other = Pair().ready()
    other.bob.do(Received(add_message(other, amount_msat=most_msat)))
    assert other.bob.channel.phase is Phase.NORMAL


def test_one_htlc_too_many_fails_the_channel():
    pair = Pair().ready(bob=params("bob", max_accepted_htlcs=2))
    for htlc_id in range(2):
        pair.bob.do(Received(add_message(pair, id=htlc_id)))
    assert "more HTLCs" in faults(pair, add_message(pair, id=2))


def committed():
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.settle()
    return pair, pair.alice.channel.channel_id


def test_a_wrong_preimage_fails_the_channel():
    pair, channel_id = committed()
    faults(pair, bolt2.UpdateFulfillHtlc(channel_id, 0, bytes(32)), at="alice")


def test_removing_what_is_not_there_fails_the_channel():
    pair, channel_id = committed()
    faults(pair, bolt2.UpdateFailHtlc(channel_id, 1, b""), at="alice")


def test_removing_what_is_not_committed_fails_the_channel():
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.alice.do(Sign())
    faults(pair, bolt2.UpdateFailHtlc(pair.alice.channel.channel_id, 0, b""), at="alice")


def test_a_malformed_failure_without_badonion_fails_the_channel():
    pair, channel_id = committed()
    faults(pair, bolt2.UpdateFailMalformedHtlc(channel_id, 0, bytes(32), 0x4005), at="alice")


def test_failing_after_fulfilling_fails_the_channel_and_the_preimage_stays():
    pair, channel_id = committed()
    pair.alice.do(Received(bolt2.UpdateFulfillHtlc(channel_id, 0, preimage(1))))
    faults(pair, bolt2.UpdateFailHtlc(channel_id, 0, b""), at="alice")
    assert pair.alice.channel.offered[0].resolution.preimage == preimage(1)
    assert len(pair.alice.told(fx.HtlcFulfilled)) == 1


def test_a_settlement_said_twice_counts_once():
    pair, channel_id = committed()
    for _ in range(2):
        pair.alice.do(Received(bolt2.UpdateFulfillHtlc(channel_id, 0, preimage(1))))
    assert len(pair.alice.told(fx.HtlcFulfilled)) == 1
    assert pair.alice.channel.phase is Phase.NORMAL


def test_our_own_decisions_are_idempotent_and_checked():
    pair, _ = committed()
    assert pair.bob.do(Fulfill(0, bytes(32))) == ()
    assert pair.bob.do(Fail(0, bytes(60_000))) == ()
    assert pair.bob.do(FailMalformed(0, bytes(32), 1)) == ()
    assert pair.bob.do(Fulfill(7, preimage(1))) == ()
    pair.fulfill(pair.bob, 0)
    assert pair.bob.do(Fulfill(0, preimage(1))) == ()
    assert pair.bob.do(Fail(0, b"late")) == ()
    pair.settle()
    assert pair.bob.do(Fail(0, b"much too late")) == ()
    assert_agree(pair)


def test_a_malformed_onion_is_reported_as_such():
    pair, _ = committed()
    pair.bob.do(FailMalformed(0, sha256(ONION), 0xC005))
    pair.settle()
    assert pair.alice.told(fx.HtlcMalformed) == [fx.HtlcMalformed(0, sha256(ONION), 0xC005)]


def test_a_huge_failure_reason_is_not_kept():
    pair, channel_id = committed()
    pair.alice.do(Received(bolt2.UpdateFailHtlc(channel_id, 0, bytes(60_000))))
    assert pair.alice.channel.offered[0].resolution.reason == b""


@pytest.mark.parametrize(
    "rate", [252, 100_001, 99_000], ids=["below the least", "above the most", "unaffordable"]
)
def test_a_fee_rate_out_of_bounds_fails_the_channel(rate):
    pair = Pair().ready(push_msat=900_000_000)
    faults(pair, bolt2.UpdateFee(pair.bob.channel.channel_id, rate))


def test_the_accepter_must_not_set_the_fee_rate():
    pair = Pair().ready()
    faults(pair, bolt2.UpdateFee(pair.bob.channel.channel_id, 3_000), at="alice")


@pytest.mark.parametrize("broken", ["signature", "htlc", "count"])
def test_a_commitment_that_is_not_fully_signed_fails_the_channel(broken):
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.alice.do(Sign())
    pair.deliver(pair.alice)
    signed = pair.alice.sent(bolt2.CommitmentSigned)[0]
    other = signed.signature
    changes = {
        "signature": {"signature": signed.htlc_signatures[0]},
        "htlc": {"htlc_signatures": (other,)},
        "count": {"htlc_signatures": ()},
    }[broken]
    assert "signature" in faults(pair, replace(signed, **changes))


def test_a_high_s_signature_is_not_accepted():
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    pair = Pair().ready()
    pair.add(pair.alice, 300_000)
    pair.alice.do(Sign())
    pair.deliver(pair.alice)
    signed = pair.alice.sent(bolt2.CommitmentSigned)[0]
    high = order - int.from_bytes(signed.signature[32:], "big")
    faults(pair, replace(signed, signature=signed.signature[:32] + high.to_bytes(32, "big")))


@pytest.mark.parametrize("field", ["per_commitment_secret", "next_per_commitment_point"])
def test_a_revocation_that_reveals_nothing_fails_the_channel(field):
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.alice.do(Sign())
    pair.deliver(pair.alice)
    pair.deliver(pair.alice)
    revocation = pair.bob.sent(bolt2.RevokeAndAck)[0]
    faults(pair, replace(revocation, **{field: bytes(len(getattr(revocation, field)))}), at="alice")


def test_a_revocation_that_nobody_owes_fails_the_channel():
    pair = Pair().ready()
    message = bolt2.RevokeAndAck(pair.alice.channel.channel_id, bytes(31) + b"\1", pair.bob.node_id)
    faults(pair, message, at="alice")


def test_each_revoked_commitment_leaves_what_a_penalty_needs():
    pair, _ = committed()
    pair.fulfill(pair.bob, 0)
    pair.settle()
    stored = {e.commitment_number: decode_revoked(e.data) for e in pair.alice.told(fx.StoreRevoked)}
    assert sorted(stored) == [0, 1]
    assert stored[0].htlcs == ()
    (htlc,) = stored[1].htlcs
    assert (htlc.offered, htlc.payment_hash, htlc.cltv_expiry) == (True, sha256(preimage(1)), HEIGHT + 200)
    assert stored[1].remote_msat == 400_000_000
    assert stored[1].local_msat == 590_000_000


def test_the_running_sums_are_those_of_a_recount():
    pair = Pair().ready(STATIC)
    for seed in range(6):
        pair.add(pair.alice, 400_000 * (seed + 1), seed)
        pair.add(pair.bob, 700_000 * (seed + 1), seed)
    pair.alice.do(UpdateFee(1_000))
    pair.settle()
    for end in pair.ends:
        for local in (True, False):
            view = end.channel.local_view if local else end.channel.remote_view
            rate = views.next_feerate(end.channel, local=local)
            assert view == views.recounted(end.channel, rate, local=local)
            offered, received = views.select(end.channel, views.NEXT, local=local)
            assert view.offered_msat == sum(h.amount_msat for h in offered)
            assert view.received_count == len(received)
    assert pair.alice.channel.feerates == {State.COMMITTED: 1_000}
