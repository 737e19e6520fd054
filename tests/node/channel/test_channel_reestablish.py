"""BOLT 2, message retransmission: the link may break after any message."""

import msgspec
import pytest
from channel_pair import ANCHORS, HEIGHT, STATIC, Pair, assert_agree, preimage

from node.channel import effects as fx
from node.channel.events import (
    Block,
    Connected,
    Disconnected,
    Fail,
    ForceClose,
    Fulfill,
    Received,
    Restored,
    Sign,
    Taken,
    UpdateFee,
)
from node.channel.model import Phase, State, decode
from node.crypto.derivation import per_commitment_secret
from node.crypto.hashes import sha256
from node.wire import bolt1, bolt2

PLAN = {"alice": (11_000_000, 200_000, 13_000_000), "bob": (7_000_000, 150_000)}


class Busy(Pair):
    """Both have payments to make; the receiver settles the even ones and fails the odd ones."""

    def __init__(self):
        super().__init__()
        self.seen = {end.name: 0 for end in self.ends}
        self.todo = {end.name: [] for end in self.ends}
        self.ids = {end.name: {} for end in self.ends}

    def begin(self):
        for end in self.ends:
            self.todo[end.name] = list(enumerate(PLAN[end.name]))
        self.alice.do(UpdateFee(3_000))
        self.act()

    def act(self):
        """What relays and wallets would do with what they are told."""
        for end in self.ends:
            new, self.seen[end.name] = end.log[self.seen[end.name] :], len(end.log)
            for effect in new:
                match effect:
                    case fx.HtlcReady(htlc):
                        end.do(Taken(htlc.id))
                        self.decide(end, htlc)
                    case fx.HtlcDropped(htlc_id):
                        seed = self.ids[end.name].pop(htlc_id)
                        self.todo[end.name].append((seed, PLAN[end.name][seed]))
            while self.todo[end.name] and end.channel.is_usable:
                seed, amount_msat = self.todo[end.name].pop(0)
                htlc_id = self.add(end, amount_msat, seed)
                self.ids[end.name][htlc_id] = seed

    def decide(self, end, htlc):
        seed = next(s for s in range(3) if htlc.payment_hash == hash_of(s))
        end.do(Fulfill(htlc.id, preimage(seed)) if seed % 2 == 0 else Fail(htlc.id, b"no"))

    def run(self, cut_after=None, *, restart=False):
        """Everything until rest; after `cut_after` messages the link breaks, once."""
        delivered = 0
        while True:
            self.act()
            for end in self.ends:
                end.do(Sign())
            senders = [end for end in self.ends if end.outbox]
            if delivered == cut_after:
                delivered += 1
                self.cut(restart=restart)
            elif senders:
                # turns, so that both directions are always under way
                self.deliver(senders[delivered % len(senders)])
                delivered += 1
            else:
                return delivered

    def cut(self, *, restart):
        self.transcript.append("--- the link breaks ---")
        if restart:
            for end in self.ends:
                end.restart()
        else:
            self.disconnect()
        self.act()
        self.reconnect()


def hash_of(seed):
    return sha256(preimage(seed))


def busy(channel_type):
    pair = Busy()
    pair.ready(channel_type)
    for end in pair.ends:
        end.log.clear()
    return pair


def outcome(pair):
    assert_agree(pair)
    alice, bob = pair.ends
    assert not (alice.channel.offered)
    assert not (alice.channel.received)
    assert not (bob.channel.offered)
    return [
        (
            end.channel.local_msat,
            end.channel.phase,
            end.channel.feerates[State.COMMITTED],
            sorted(effect.preimage for effect in end.told(fx.HtlcFulfilled)),
            len(end.told(fx.HtlcFailed)),
            sorted(effect.fulfilled for effect in end.told(fx.HtlcSettled)),
        )
        for end in pair.ends
    ]


def undisturbed(channel_type):
    pair = busy(channel_type)
    pair.begin()
    return pair.run(), outcome(pair)


LENGTH, OUTCOME = undisturbed(ANCHORS)


def test_the_undisturbed_transcript_settles_everything():
    assert LENGTH > 20
    alice, bob = OUTCOME
    assert alice[0] == 600_000_000 - 24_000_000 + 7_000_000
    assert len(alice[3]) == 2
    assert alice[4] == bob[4] == 1


@pytest.mark.parametrize("restart", [False, True], ids=["reconnect", "restart"])
@pytest.mark.parametrize("cut_after", range(LENGTH + 1))
def test_the_link_breaks_after_any_message_and_nothing_is_lost(cut_after, restart):
    pair = busy(ANCHORS)
    pair.begin()
    pair.run(cut_after, restart=restart)
    result = outcome(pair)
    feerates = [side[2] for side in result]
    assert feerates in ([3_000] * 2, [2_500] * 2)  # an unsigned fee update is forgotten, not repeated
    for side, expected in zip(result, OUTCOME, strict=True):
        told_once = (*side[:2], *(sorted(set(side[3])),), *side[4:])
        assert told_once == (*expected[:2], expected[3], *expected[4:])


@pytest.mark.parametrize("cut_after", range(0, LENGTH + 1, 3))
def test_it_breaks_without_anchors_too(cut_after):
    pair = busy(STATIC)
    pair.begin()
    pair.run(cut_after)
    assert outcome(pair)[0][0] == OUTCOME[0][0]


@pytest.mark.parametrize("cut_after", range(8))
def test_it_breaks_while_the_channel_opens(cut_after):
    pair = Pair().open(announce=True)
    for _ in range(cut_after):
        sender = next((end for end in pair.ends if end.outbox), None)
        if sender is None:
            pair.confirm()
            sender = next(end for end in pair.ends if end.outbox)
        pair.deliver(sender)
    pair.disconnect()
    alice, bob = pair.alice.channel, pair.bob.channel
    if cut_after < 4:  # the opener never saw funding_signed
        assert alice.phase is Phase.FORGOTTEN
        assert pair.alice.stored is None
        if cut_after == 3:
            assert pair.alice.told(fx.ReleaseFunding)
        return
    pair.reconnect()
    pair.settle()
    if bob.funding.height == 0:
        pair.confirm()
        pair.settle()
    assert pair.alice.channel.phase is Phase.NORMAL, pair.transcript
    assert pair.bob.channel.phase is Phase.NORMAL
    assert len(pair.alice.told(fx.Announce)) == 1
    assert pair.alice.told(fx.Announce) == pair.bob.told(fx.Announce)
    assert_agree(pair)


def test_revocation_and_signature_are_repeated_in_their_original_order():
    pair = Pair().ready()
    alice, bob = pair.ends
    pair.auto_sign = False
    pair.add(alice)
    alice.do(Sign())
    pair.settle()  # bob has revoked, and owes a signature
    bob.do(Sign())
    pair.deliver(bob)  # alice has revoked; that is lost
    pair.add(alice)
    alice.do(Sign())  # and then this too
    pair.disconnect()
    pair.transcript.clear()
    pair.reconnect()
    pair.settle()
    sent = [line for line in pair.transcript if line.startswith("alice")]
    assert sent[:4] == [
        "alice: ChannelReestablish",
        "alice: RevokeAndAck",
        "alice: UpdateAddHtlc",
        "alice: CommitmentSigned",
    ]
    pair.auto_sign = True
    pair.settle()
    assert_agree(pair)


def test_a_signature_sent_before_the_revocation_is_repeated_before_it():
    pair = Pair().ready()
    alice, bob = pair.ends
    pair.auto_sign = False
    pair.add(bob)
    bob.do(Sign())
    pair.add(alice)
    alice.do(Sign())
    lost = list(alice.outbox)
    pair.deliver(bob)
    pair.deliver(bob)  # alice revokes after she signed
    assert len(alice.outbox) == len(lost) + 1
    pair.disconnect()
    pair.transcript.clear()
    pair.reconnect()
    pair.settle()
    sent = [line for line in pair.transcript if line.startswith("alice")]
    assert sent[1:] == ["alice: UpdateAddHtlc", "alice: CommitmentSigned", "alice: RevokeAndAck"]
    pair.auto_sign = True
    pair.settle()
    assert_agree(pair)


def test_the_repeated_signature_is_the_same_one():
    pair = Pair().ready()
    pair.auto_sign = False
    pair.add(pair.alice)
    pair.alice.do(Sign())
    first = pair.alice.sent(bolt2.CommitmentSigned)[-1]
    pair.disconnect()
    pair.reconnect()
    pair.settle()
    assert pair.alice.sent(bolt2.CommitmentSigned)[-1] == first
    assert len(pair.alice.sent(bolt2.CommitmentSigned)) == 2


def test_a_decision_taken_offline_is_sent_after_the_reconnection():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.disconnect()
    pair.fulfill(pair.bob, htlc_id)
    assert not pair.bob.outbox
    pair.reconnect()
    pair.settle()
    assert pair.alice.told(fx.HtlcFulfilled)
    assert_agree(pair)


def test_a_failure_decided_offline_gives_way_to_a_preimage_and_never_the_other_way_round():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.disconnect()
    pair.fail(pair.bob, htlc_id)
    pair.fulfill(pair.bob, htlc_id)
    pair.fail(pair.bob, htlc_id)
    pair.reconnect()
    pair.settle()
    assert pair.alice.told(fx.HtlcFulfilled)
    assert not pair.alice.told(fx.HtlcFailed)


def test_a_preimage_learned_before_the_link_broke_stays_learned():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice)
    pair.settle()
    pair.auto_sign = False
    pair.fulfill(pair.bob, htlc_id)
    pair.deliver(pair.bob)
    pair.disconnect()
    assert pair.alice.channel.offered[htlc_id].resolution.preimage == preimage(1)
    pair.auto_sign = True
    pair.reconnect()
    pair.settle()
    assert len(pair.alice.told(fx.HtlcFulfilled)) == 1
    assert_agree(pair)


def test_an_id_that_was_never_committed_is_used_again():
    pair = Pair().ready()
    assert pair.add(pair.alice) == 0
    pair.disconnect()
    assert pair.alice.told(fx.HtlcDropped) == [fx.HtlcDropped(0)]
    pair.reconnect()
    pair.settle()
    assert pair.add(pair.alice) == 0
    pair.settle()
    assert_agree(pair)


def behind(pair, end):
    """Take one side back to an old backup."""
    backup = end.stored
    for seed in (1, 2):
        pair.add(pair.alice, seed=seed)
        pair.settle()
    pair.disconnect()
    end.channel = decode(backup)
    end.do(Disconnected())


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_who_lost_data_does_not_publish_and_the_other_does(name):
    pair = Pair().ready()
    late = getattr(pair, name)
    behind(pair, late)
    pair.reconnect()
    pair.settle()
    assert late.channel.phase is Phase.DATA_LOSS
    assert not [e for e in late.told(fx.Publish) if e.why == "commitment"]
    other = pair.other(late)
    assert other.channel.phase is Phase.FORCE_CLOSED
    assert [e for e in other.told(fx.Publish) if e.why == "commitment"]


def reestablish_of(pair, **changes):
    """What bob says at a reconnection, changed; alice's answer."""
    pair.add(pair.alice)
    pair.settle()
    pair.disconnect()
    pair.reconnect()
    honest = pair.bob.sent(bolt2.ChannelReestablish)[-1]
    return pair.alice.do(Received(msgspec.structs.replace(honest, **changes)))


def test_you_are_late_is_not_believed_without_the_secret():
    pair = Pair().ready()
    reestablish_of(pair, next_commitment_number=50, next_revocation_number=40)
    assert pair.alice.channel.phase is Phase.FORCE_CLOSED


def test_you_are_late_is_believed_with_the_secret():
    pair = Pair().ready()
    secret = per_commitment_secret(pair.alice.keys.commitment_seed, 39)
    reestablish_of(pair, next_revocation_number=40, your_last_per_commitment_secret=secret)
    assert pair.alice.channel.phase is Phase.DATA_LOSS
    assert pair.alice.sent(bolt1.Error)


@pytest.mark.parametrize(
    "changes",
    [
        {"next_commitment_number": 0},
        {"next_commitment_number": 1},
        {"next_commitment_number": 3},
        {"next_revocation_number": 0},
        {"next_revocation_number": 1 << 60},
        {"your_last_per_commitment_secret": bytes(32)},
    ],
    ids=str,
)
def test_an_impossible_account_closes_the_channel(changes):
    pair = Pair().ready()
    effects = reestablish_of(pair, **changes)
    assert pair.alice.channel.phase is Phase.FORCE_CLOSED
    kinds = [type(e) for e in effects]
    assert kinds.index(fx.Store) < kinds.index(fx.Send) < kinds.index(fx.Publish)


def test_a_failed_channel_repeats_its_error_to_a_peer_that_comes_back():
    pair = Pair().ready()
    reestablish_of(pair, next_commitment_number=0)
    pair.disconnect()
    effects = pair.alice.do(Connected(pair.features))
    assert [e.message.data for e in effects if isinstance(e, fx.Send)] == [
        pair.alice.channel.failure.encode()
    ]


def test_nothing_but_channel_reestablish_may_come_first():
    pair = Pair().ready()
    pair.disconnect()
    pair.reconnect()
    before = pair.alice.channel
    effects = pair.alice.do(Received(bolt2.UpdateFee(before.channel_id, 1_000)))
    assert pair.alice.channel == before
    assert any(isinstance(e, fx.Disconnect) for e in effects)


def test_a_restart_brings_back_what_nobody_has_decided():
    pair = Pair().ready()
    htlc_id = pair.add(pair.alice, expiry=HEIGHT + 100)
    pair.settle()
    pair.bob.log.clear()
    pair.bob.restart()
    assert [e.htlc.id for e in pair.bob.told(fx.HtlcReady)] == [htlc_id]
    pair.bob.do(Taken(htlc_id))
    assert pair.bob.channel.received[htlc_id].onion == b""


def commitments_published(end):
    return [effect for effect in end.told(fx.Publish) if effect.why == "commitment"]


def restored_with_an_htlc():
    """Alice's database is an older copy, and the HTLC in it has timed out meanwhile."""
    pair = Pair().ready()
    pair.add(pair.alice, expiry=HEIGHT + 100)
    pair.settle()
    pair.disconnect()
    assert isinstance(pair.alice.do(Restored())[0], fx.Store)
    pair.alice.do(Block(HEIGHT + 200))
    return pair


def test_a_restored_state_is_not_published_before_the_peer_has_shown_where_it_stands():
    pair = restored_with_an_htlc()
    assert pair.alice.channel.phase is Phase.NORMAL
    pair.alice.do(ForceClose(9, "asked for"))
    assert pair.alice.channel.phase is Phase.DATA_LOSS
    assert not commitments_published(pair.alice)


def test_a_restored_state_that_the_peer_confirms_is_as_good_as_any():
    pair = restored_with_an_htlc()
    pair.reconnect()
    pair.settle()
    assert not pair.alice.channel.unproven
    pair.alice.do(Block(HEIGHT + 201))
    assert pair.alice.channel.phase is Phase.FORCE_CLOSED
    assert commitments_published(pair.alice)


def test_an_account_that_cannot_be_is_no_reason_to_publish_a_restored_state():
    pair = Pair().ready()
    pair.alice.do(Restored())
    reestablish_of(pair, next_commitment_number=50, next_revocation_number=40)
    assert pair.alice.channel.phase is Phase.DATA_LOSS
    assert not commitments_published(pair.alice)
