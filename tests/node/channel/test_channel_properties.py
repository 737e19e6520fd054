"""Whatever two sides do and however often links and processes break, no msat and no HTLC is lost."""

import os
from collections import Counter

from channel_pair import ANCHORS, FEERATES, HEIGHT, ONION, STATIC, Pair, assert_agree, preimage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from node.channel import effects as fx
from node.channel import views
from node.channel.events import (
    Add,
    Block,
    Disconnected,
    Fail,
    FailMalformed,
    Fulfill,
    Shutdown,
    Sign,
    Taken,
    UpdateFee,
)
from node.channel.model import Link, Phase, State
from node.channel.updates import needs_signature
from node.crypto.hashes import sha256

FUNDING_MSAT = 1_000_000_000
SIDES = st.sampled_from(["alice", "bob"])
AMOUNTS = st.sampled_from([1, 300_000, 400_000, 2_000_000, 5_000_000, 90_000_000, 300_000_000])
RARELY = st.sampled_from([False, False, False, False, True])
LIVELY = {Phase.NORMAL, Phase.SHUTTING_DOWN, Phase.NEGOTIATING, Phase.CLOSING}


class Channels(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.seed = 0
        self.offered = {"alice": {}, "bob": {}}  # id -> (amount, seed), of those not dropped
        self.ready = {"alice": set(), "bob": set()}
        self.outcome = {"alice": {}, "bob": {}}  # of what each offered
        self.decided = {"alice": {}, "bob": {}}
        self.read = Counter()

    @initialize(channel_type=st.sampled_from([ANCHORS, STATIC]), push_msat=st.sampled_from([0, 400_000_000]))
    def open(self, channel_type, push_msat):
        self.push_msat = push_msat
        self.pair = Pair().ready(channel_type, push_msat=push_msat)
        for end in self.pair.ends:
            end.log.clear()
        self.pair.auto_sign = False

    def end(self, name):
        return getattr(self.pair, name)

    @rule(name=SIDES, amount_msat=AMOUNTS)
    def add(self, name, amount_msat):
        self.seed += 1
        effects = self.end(name).do(Add(9, amount_msat, sha256(preimage(self.seed)), HEIGHT + 500, ONION))
        reply = effects[-1]
        if reply.error is None:
            assert reply.value not in self.offered[name]
            self.offered[name][reply.value] = (amount_msat, self.seed)

    @rule(
        name=SIDES, pick=st.integers(0, 20), how=st.sampled_from(["fulfill", "fulfill", "fail", "malformed"])
    )
    def decide(self, name, pick, how):
        ids = sorted(self.ready[name])
        if ids:
            self.decide_one(name, ids[pick % len(ids)], how)

    def decide_one(self, name, htlc_id, how):
        end, offerer = self.end(name), "bob" if name == "alice" else "alice"
        seed = self.offered[offerer][htlc_id][1]
        end.do(
            {
                "fulfill": Fulfill(htlc_id, preimage(seed)),
                "fail": Fail(htlc_id, b"reason"),
                "malformed": FailMalformed(htlc_id, bytes(32), 0xC004),
            }[how]
        )

    @rule(name=SIDES, pick=st.integers(0, 20))
    def take(self, name, pick):
        if self.ready[name]:
            self.end(name).do(Taken(sorted(self.ready[name])[pick % len(self.ready[name])]))

    @rule(rate=st.sampled_from([253, 1_000, 2_500, 5_000, 9_000]))
    def update_fee(self, rate):
        self.pair.alice.do(UpdateFee(rate))

    @rule(name=SIDES)
    def sign(self, name):
        end = self.end(name)
        wanted = end.channel.wants_to_sign
        assert bool(end.do(Sign())) is wanted

    @rule(name=SIDES, count=st.integers(1, 4))
    def deliver(self, name, count):
        for _ in range(count):
            if self.end(name).outbox:
                self.pair.deliver(self.end(name))

    @rule(name=SIDES, count=st.integers(1, 12))
    def talk(self, name, count):
        """Some rounds of what two backends do, so that sequences get somewhere."""
        ends = [self.end(name), self.pair.other(self.end(name))]
        for at in range(count):
            end = ends[at % 2]
            end.do(Sign())
            if end.outbox:
                self.pair.deliver(end)

    @rule(rarely=RARELY)
    def break_link(self, rarely):
        if rarely:
            self.pair.disconnect()

    @rule(name=SIDES, rarely=RARELY)
    def crash(self, name, rarely):
        if not rarely:
            return
        end = self.end(name)
        self.pair.other(end).outbox.clear()
        self.pair.other(end).do(Disconnected())
        end.restart()

    @precondition(lambda self: self.pair.alice.channel.link is Link.OFFLINE)
    @rule(count=st.integers(0, 8))
    def reconnect(self, count):
        self.pair.reconnect()
        self.talk("alice", count)

    @rule(name=SIDES, rarely=st.integers(0, 40))
    def shut_down(self, name, rarely):
        if rarely == 40:  # nothing can be added after it
            self.end(name).do(Shutdown(5, b"", FEERATES))

    @rule()
    def block(self):
        for end in self.pair.ends:
            end.do(Block(HEIGHT + 10))

    @invariant()
    def both_live_and_hear(self):
        if not hasattr(self, "pair"):
            return
        for end in self.pair.ends:
            assert end.channel.phase in LIVELY, end.channel.failure
            self.hear(end)

    def hear(self, end):
        name, other = end.name, self.pair.other(end).name
        new, self.read[name] = end.log[self.read[name] :], len(end.log)
        for effect in new:
            match effect:
                case fx.HtlcReady(htlc):
                    assert (htlc.amount_msat, htlc.id) == (self.offered[other][htlc.id][0], htlc.id)
                    self.ready[name].add(htlc.id)
                case fx.HtlcFulfilled(htlc_id, secret):
                    assert sha256(secret) == sha256(preimage(self.offered[name][htlc_id][1]))
                    assert self.outcome[name].setdefault(htlc_id, "fulfilled") == "fulfilled"
                case fx.HtlcFailed(htlc_id) | fx.HtlcMalformed(htlc_id):
                    assert htlc_id not in self.outcome[name], "told twice, or both ways"
                    self.outcome[name][htlc_id] = "failed"
                case fx.HtlcDropped(htlc_id):
                    assert htlc_id not in self.ready[other]
                    del self.offered[name][htlc_id]
                case fx.HtlcSettled(htlc_id, fulfilled):
                    assert htlc_id not in self.decided[name], "settled twice"
                    self.decided[name][htlc_id] = "fulfilled" if fulfilled else "failed"
                    self.ready[name].remove(htlc_id)

    @invariant()
    def what_is_remembered_is_what_a_recount_finds(self):
        if not hasattr(self, "pair"):
            return
        for end in self.pair.ends:
            ch = end.channel
            assert ch.unsigned_changes == needs_signature(ch)
            for local in (True, False):
                view = ch.local_view if local else ch.remote_view
                offered, received = views.select(ch, views.NEXT, local=local)
                assert view == views.recounted(ch, views.next_feerate(ch, local=local), local=local)
                assert view.offered_msat == sum(h.amount_msat for h in offered)
                assert view.received_msat == sum(h.amount_msat for h in received)
                assert (view.offered_count, view.received_count) == (len(offered), len(received))
                assert min(view.local_msat, view.remote_msat) >= 0
                assert view.total_msat == FUNDING_MSAT

    @invariant()
    def both_hold_the_same_commitments(self):
        if not hasattr(self, "pair"):
            return
        for end in self.pair.ends:
            held = end.channel.local_commit
            other = self.pair.other(end).channel
            signed = {c.number: c.txid for c in (other.remote_commit, other.remote_next) if c is not None}
            assert signed[held.number] == held.txid

    def teardown(self):
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        pair.disconnect()
        pair.reconnect()
        pair.auto_sign = True
        for _ in range(3):
            pair.settle()
            self.both_live_and_hear()
            for name in ("alice", "bob"):
                for htlc_id in sorted(self.ready[name]):
                    self.decide_one(name, htlc_id, "fail")
        self.finally_everything_is_settled_once()

    def finally_everything_is_settled_once(self):
        alice, bob = self.pair.ends
        assert_agree(self.pair)
        gained = 0
        for name, other in (("alice", "bob"), ("bob", "alice")):
            assert self.outcome[name].keys() == self.offered[name].keys()
            assert self.outcome[name] == self.decided[other]
            sent = sum(
                self.offered[name][i][0] for i, how in self.outcome[name].items() if how == "fulfilled"
            )
            gained += -sent if name == "alice" else sent
        assert alice.channel.local_msat == FUNDING_MSAT - self.push_msat + gained
        assert bob.channel.local_msat == FUNDING_MSAT - alice.channel.local_msat
        closing = alice.channel.closing is not None
        assert {end.channel.phase for end in self.pair.ends} == {Phase.CLOSING if closing else Phase.NORMAL}
        assert alice.channel.feerates.keys() == {State.COMMITTED}


TestChannels = Channels.TestCase
TestChannels.settings = settings(
    # a soak run asks for more
    max_examples=int(os.environ.get("CHANNEL_EXAMPLES", "40")),
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
