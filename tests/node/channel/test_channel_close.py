"""BOLT 2, channel close: shutdown, the old negotiation and the simple one, and the end by force."""

import msgspec
import pytest
from channel_pair import ANCHORS, FEATURES, FEERATES, HEIGHT, SIMPLE_CLOSE, STATIC, End, Pair, params
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from node.bitcoin import transaction
from node.channel import effects as fx
from node.channel.closing_model import Feerates
from node.channel.commitments import published
from node.channel.events import Block, ForceClose, FundingSpent, Received, Shutdown, Sign, UpdateFee
from node.channel.model import Phase, decode
from node.channel.parameters import Policy
from node.crypto import keys as secp
from node.wire import bolt1, bolt2, codec

BOTH = pytest.mark.parametrize("features", [FEATURES, SIMPLE_CLOSE], ids=["closing_signed", "simple_close"])


def closes(end):
    return [effect.tx for effect in end.told(fx.Publish) if effect.why == "mutual close"]


def phases(pair):
    return [end.channel.phase for end in pair.ends]


def assert_valid(pair, tx):
    """Both signatures are there, the outputs pay both what is theirs less the fee."""
    parsed = transaction.parse(tx)
    assert parsed.inputs[0].txid == pair.alice.channel.funding.txid
    _, *_, script = parsed.inputs[0].witness
    digest = transaction.sighash(tx, 0, script, pair.alice.channel.funding_sat)
    for point, der in zip(
        sorted(end.channel.local.funding_pubkey for end in pair.ends),
        parsed.inputs[0].witness[1:3],
        strict=True,
    ):
        r, s = decode_dss_signature(der[:-1])
        assert secp.verify(point, digest, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return {output.script: output.sat for output in parsed.outputs}


@BOTH
@pytest.mark.parametrize("starter", ["alice", "bob"])
@pytest.mark.parametrize("channel_type", [ANCHORS, STATIC], ids=["anchors", "static_remotekey"])
def test_either_side_closes(features, starter, channel_type):
    pair = Pair(features=features).ready(channel_type)
    effects = getattr(pair, starter).do(Shutdown(5, b"", FEERATES))
    assert fx.Reply(5) in effects
    pair.settle()
    assert phases(pair) == [Phase.CLOSING] * 2, pair.transcript
    assert set(closes(pair.alice)) == set(closes(pair.bob))
    for tx in closes(pair.alice):
        outputs = assert_valid(pair, tx)
        assert set(outputs) == {end.channel.shutdown_script for end in pair.ends}
        assert 999_000 < sum(outputs.values()) < 1_000_000


@BOTH
def test_a_close_waits_for_htlcs_and_takes_no_new_ones(features):
    pair = Pair(features=features).ready()
    alice, bob = pair.ends
    htlc_id = pair.add(alice)
    pair.settle()
    bob.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    assert phases(pair) == [Phase.SHUTTING_DOWN] * 2
    assert not alice.channel.is_usable
    alice.do(UpdateFee(3_000))
    pair.settle()
    pair.fulfill(bob, htlc_id)
    pair.settle()
    assert phases(pair) == [Phase.CLOSING] * 2
    assert alice.told(fx.HtlcFulfilled)


def test_no_fee_update_crosses_the_revocation_that_clears_the_channel():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    pair.fulfill(pair.bob, htlc_id)
    pair.settle(until=lambda: pair.alice.channel.remote_next is not None)
    assert pair.alice.do(UpdateFee(3_000)) == ()
    pair.settle()
    assert phases(pair) == [Phase.CLOSING] * 2


def test_shutdown_waits_until_our_updates_are_signed():
    pair = Pair().ready()
    pair.auto_sign = False
    pair.add(pair.alice)
    pair.alice.do(Shutdown(5, b"", FEERATES))
    assert not pair.alice.sent(bolt2.Shutdown)
    pair.auto_sign = True
    pair.settle()
    assert pair.transcript.index("alice: CommitmentSigned") < pair.transcript.index("alice: Shutdown")
    assert pair.bob.told(fx.HtlcReady)


def test_an_htlc_that_comes_after_our_shutdown_is_to_be_failed():
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.bob.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    assert [effect.htlc.must_fail for effect in pair.bob.told(fx.HtlcReady)] == [True]


def test_an_htlc_added_after_the_peers_shutdown_is_a_fault():
    pair = Pair().ready()
    pair.add(pair.alice)
    add = pair.alice.sent(bolt2.UpdateAddHtlc)[-1]
    pair.bob.do(Received(bolt2.Shutdown(add.channel_id, pair.alice.channel.shutdown_script)))
    pair.bob.do(Received(add))
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED


@BOTH
@pytest.mark.parametrize("cut_after", range(12))
def test_the_link_breaks_in_the_middle_of_a_close(features, cut_after):
    pair = Pair(features=features).ready()
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.bob.do(Shutdown(5, b"", FEERATES))
    pair.fulfill(pair.bob, htlc_id)
    count = len(pair.transcript)
    pair.settle(until=lambda: len(pair.transcript) >= count + cut_after)
    for end in pair.ends:
        end.restart()
    pair.reconnect()
    pair.settle()
    assert phases(pair) == [Phase.CLOSING] * 2, pair.transcript
    assert closes(pair.alice)[-1] in closes(pair.bob)


def test_different_fee_rates_meet_in_the_overlap_of_the_ranges():
    pair = Pair(bob=End("bob", Policy(close_feerate_per_kw=3_000))).ready()
    pair.alice.do(Shutdown(5, b"", Feerates(1_000, 500, 2_000)))
    pair.settle()
    assert phases(pair) == [Phase.CLOSING] * 2
    assert closes(pair.alice) == closes(pair.bob)
    fee_sat = 1_000_000 - sum(assert_valid(pair, closes(pair.alice)[0]).values())
    offers = [message.fee_satoshis for message in pair.alice.sent(bolt2.ClosingSigned)]
    assert fee_sat == offers[-1] > offers[0]


def test_ranges_without_overlap_are_warned_of():
    pair = Pair(bob=End("bob", Policy(close_feerate_per_kw=3_000, min_feerate_per_kw=2_000))).ready(
        feerate_per_kw=2_500
    )
    pair.alice.do(Shutdown(5, b"", Feerates(1_000, 500, 1_500)))
    pair.settle()
    assert phases(pair) == [Phase.NEGOTIATING] * 2
    assert pair.bob.sent(bolt1.Warning)


def strip_ranges(pair):
    """Deliver everything, closing_signed without its fee_range, as old peers send it."""
    rounds = 0
    while any(end.outbox for end in pair.ends):
        rounds += 1
        assert rounds < 100
        sender = next(end for end in pair.ends if end.outbox)
        message = codec.decode(sender.outbox.popleft())
        if isinstance(message, bolt2.ClosingSigned):
            message = msgspec.structs.replace(message, fee_range=None)
        pair.other(sender).do(Received(message))
    return rounds


@pytest.mark.parametrize("bobs_rate", [900, 1_000, 20_000])
def test_without_ranges_the_two_haggle_until_they_agree(bobs_rate):
    bob = End("bob", Policy(close_feerate_per_kw=bobs_rate, min_feerate_per_kw=min(bobs_rate, 2_000)))
    pair = Pair(bob=bob).ready(feerate_per_kw=2_500)
    pair.alice.do(Shutdown(5, b"", Feerates(1_000, 900, 1_100)))
    strip_ranges(pair)
    assert phases(pair) == [Phase.CLOSING] * 2
    assert closes(pair.alice)[-1] == closes(pair.bob)[-1]


def test_a_wrong_signature_of_the_close_fails_the_channel():
    pair = Pair().ready()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle(until=lambda: bool(pair.alice.sent(bolt2.ClosingSigned)))
    offer = pair.alice.sent(bolt2.ClosingSigned)[0]
    pair.bob.do(Received(msgspec.structs.replace(offer, fee_satoshis=offer.fee_satoshis + 1)))
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED


def test_a_simple_close_is_paid_more_for_by_asking_again():
    pair = Pair(features=SIMPLE_CLOSE).ready()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    assert len(closes(pair.alice)) == 2  # one paid by each
    pair.bob.do(Shutdown(6, b"", Feerates(4_000, 253, 10_000)))
    pair.settle()
    txs = closes(pair.bob)
    assert len(txs) == 3
    outputs = assert_valid(pair, txs[-1])
    assert outputs[pair.bob.channel.shutdown_script] < 400_000 - 4_000 * 600 // 1000
    assert outputs[pair.alice.channel.shutdown_script] == 600_000
    assert pair.alice.channel.closing.txs[-1] == txs[-1]


def test_a_simple_close_may_move_to_another_script():
    pair = Pair(features=SIMPLE_CLOSE).ready()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    other = b"\0\x14" + b"n" * 20
    pair.bob.do(Shutdown(6, other, Feerates(4_000, 253, 10_000)))
    pair.settle()
    assert assert_valid(pair, closes(pair.alice)[-1])[other] > 390_000
    pair.alice.do(Shutdown(7, b"", Feerates(5_000, 253, 10_000)))
    pair.settle()
    assert assert_valid(pair, closes(pair.alice)[-1])[other] == 400_000


def test_both_moving_their_script_at_once_ends_in_warnings_and_a_reconnection_repairs_it():
    pair = Pair(features=SIMPLE_CLOSE).ready()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    scripts = [b"\0\x14" + letter * 20 for letter in (b"x", b"y")]
    for end, script in zip(pair.ends, scripts, strict=True):
        end.do(Shutdown(6, script, Feerates(4_000, 253, 10_000)))
    pair.settle()
    assert all(end.told(fx.Disconnect) for end in pair.ends)
    pair.disconnect()
    pair.reconnect()
    pair.settle()
    for tx in closes(pair.alice)[-2:]:
        assert set(assert_valid(pair, tx)) == set(scripts)


def test_who_has_nothing_lets_the_other_pay():
    pair = Pair(features=SIMPLE_CLOSE).ready(push_msat=0)
    pair.bob.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    assert phases(pair) == [Phase.CLOSING] * 2
    assert len(closes(pair.bob)) == 1
    assert set(assert_valid(pair, closes(pair.bob)[0])) == {pair.alice.channel.shutdown_script}


def test_a_promised_script_is_kept_and_held_against_the_peer():
    features = msgspec.structs.replace(FEATURES, upfront_shutdown_script=True)
    pair = Pair(features=features).ready(alice=params("alice", commit_to_shutdown_script=True))
    other = b"\0\x14" + b"o" * 20
    (reply,) = pair.alice.do(Shutdown(5, other, FEERATES))
    assert "promised" in reply.error
    effects = pair.bob.do(Received(bolt2.Shutdown(pair.bob.channel.channel_id, other)))
    assert [type(effect) for effect in effects[:2]] == [fx.Send, fx.Disconnect]
    assert pair.bob.channel.phase is Phase.NORMAL


def test_a_script_of_no_standard_form_is_warned_of():
    pair = Pair().ready()
    effects = pair.bob.do(Received(bolt2.Shutdown(pair.bob.channel.channel_id, b"\x51")))
    assert isinstance(effects[0].message, bolt1.Warning)
    assert pair.bob.channel.phase is Phase.NORMAL


@BOTH
def test_a_close_is_history_only_when_it_is_buried(features):
    pair = Pair(features=features).ready()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle()
    tx = closes(pair.alice)[0]
    pair.alice.do(FundingSpent(tx, HEIGHT + 10))
    pair.alice.do(Block(HEIGHT + 14))
    assert pair.alice.channel.phase is Phase.CLOSING
    pair.alice.do(FundingSpent(tx, 0))  # a reorganisation
    pair.alice.do(Block(HEIGHT + 16))
    assert pair.alice.channel.phase is Phase.CLOSING
    pair.alice.do(FundingSpent(tx, HEIGHT + 16))
    effects = pair.alice.do(Block(HEIGHT + 21))
    assert effects == (fx.Store(), fx.Closed())
    assert pair.alice.channel.phase is Phase.CLOSED


def test_a_close_that_the_peer_completed_silently_is_recognised():
    pair = Pair().ready()
    pair.alice.do(Shutdown(5, b"", FEERATES))
    pair.settle(until=lambda: bool(closes(pair.bob)))
    pair.alice.do(FundingSpent(closes(pair.bob)[0], HEIGHT + 10))
    assert pair.alice.channel.spent.kind == "mutual"
    assert pair.alice.channel.phase is Phase.CLOSING


def test_a_forced_close_stores_then_tells_then_publishes():
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.settle()
    effects = pair.alice.do(ForceClose(7, "the operator asked for it"))
    kinds = [type(effect) for effect in effects]
    assert kinds == [fx.Store, fx.Send, fx.Publish, fx.ForceClosed, fx.Reply]
    tx = effects[2].tx
    assert transaction.txid(tx) == pair.alice.channel.local_commit.txid == pair.bob.channel.remote_commit.txid
    pair.settle()
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED
    assert "operator" in pair.bob.channel.failure
    for end, kind in zip(pair.ends, ("local", "remote"), strict=True):
        end.do(FundingSpent(tx, HEIGHT + 20))
        assert end.channel.spent.kind == kind
        assert decode(end.stored) == end.channel
    assert pair.alice.do(ForceClose(8, "again"))[0].error


def test_the_peers_commitment_on_the_chain_ends_the_channel():
    pair = Pair().ready()
    revoked = pair.bob.channel
    pair.add(pair.alice)
    pair.settle()
    old = published(revoked, pair.bob.keys)
    current = published(pair.bob.channel, pair.bob.keys)
    for tx, kind in ((current, "remote"), (old, "revoked")):
        before = pair.alice.channel
        pair.alice.do(FundingSpent(tx, HEIGHT + 9))
        assert pair.alice.channel.spent.kind == kind
        assert pair.alice.channel.phase is Phase.FORCE_CLOSED
        pair.alice.channel = before


def test_the_peers_signed_but_unacknowledged_commitment_is_known_too():
    pair = Pair().ready()
    pair.auto_sign = False
    pair.add(pair.alice)
    pair.alice.do(Sign())
    pair.deliver(pair.alice)
    pair.deliver(pair.alice)
    pair.alice.do(FundingSpent(published(pair.bob.channel, pair.bob.keys), HEIGHT + 9))
    assert pair.alice.channel.spent.kind == "remote_next"
    assert 0 in pair.alice.channel.offered


def test_an_error_from_the_peer_closes_by_force_and_its_text_is_tamed():
    pair = Pair().ready()
    pair.bob.do(Received(bolt1.Error(pair.bob.channel.channel_id, b"\x1b[31m" + b"x" * 1_000)))
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED
    assert "\x1b" not in pair.bob.channel.failure
    assert len(pair.bob.channel.failure) < 300
    assert not pair.bob.sent(bolt1.Error)


def test_a_timed_out_htlc_closes_the_channel_after_a_grace():
    pair = Pair().ready()
    pair.add(pair.alice, expiry=HEIGHT + 100)
    pair.settle()
    pair.alice.do(Block(HEIGHT + 101))
    assert pair.alice.channel.phase is Phase.NORMAL
    pair.alice.do(Block(HEIGHT + 102))
    assert pair.alice.channel.phase is Phase.FORCE_CLOSED


def test_a_failure_that_the_peer_never_signs_does_not_stop_the_clock():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice, expiry=HEIGHT + 100)
    pair.settle()
    pair.auto_sign = False
    pair.fail(pair.bob, htlc_id)
    pair.deliver(pair.bob)
    pair.alice.do(Block(HEIGHT + 102))
    assert pair.alice.channel.phase is Phase.FORCE_CLOSED


def test_a_fulfilled_htlc_that_the_peer_does_not_remove_closes_the_channel_in_time():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice, expiry=HEIGHT + 100)
    pair.settle()
    pair.bob.do(Block(HEIGHT + 99))
    assert pair.bob.channel.phase is Phase.NORMAL
    pair.fulfill(pair.bob, htlc_id)
    pair.bob.do(Block(HEIGHT + 82))
    assert pair.bob.channel.phase is Phase.FORCE_CLOSED
    assert pair.bob.channel.received[htlc_id].resolution is not None


def test_an_unsigned_htlc_is_dropped_by_a_forced_close():
    pair = Pair().ready()
    pair.add(pair.alice)
    pair.alice.do(ForceClose(7, "now"))
    assert pair.alice.told(fx.HtlcDropped) == [fx.HtlcDropped(0)]
