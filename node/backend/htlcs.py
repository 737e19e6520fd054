"""The desk where HTLCs of all channels meet: forwards, payments to us, parts of our own payments.

Everything here happens between two transactions of the journal, so a forward's tie is stored in the transaction that
adds the downstream HTLC, and a preimage in the one that settles upstream.
"""

from collections.abc import Callable
from typing import Protocol, assert_never

import msgspec

from node.backend.channels import Channels, Record
from node.backend.journal import Journal
from node.backend.store import Store, put
from node.channel import effects as fx
from node.channel import events as ev
from node.channel.model import Htlc
from node.payment import forward, relay
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc
from node.runtime import logs

PUT = put("forwards")
INTERNAL = 0  # the command id of what nobody waits for

log = logs.get("htlc")


class Payee(Protocol):
    """Takes HTLCs whose onion ends here."""

    def part_arrived(self, htlc: relay.IncomingHtlc, final: relay.Final) -> None: ...


class Payer(Protocol):
    """Owns HTLCs that are parts of our own payments."""

    def part_fulfilled(self, key: HtlcKey, preimage: bytes) -> bool: ...
    def part_failed(
        self, key: HtlcKey, effect: fx.HtlcFailed | fx.HtlcMalformed | fx.HtlcDropped
    ) -> bool: ...


class Counters(msgspec.Struct):
    """What the API and the metrics show of forwards."""

    settled: int = 0
    failed: int = 0
    fee_msat: int = 0


class Htlcs:
    def __init__(
        self, channels: Channels, journal: Journal, node_secret: bytes, lookup: relay.Lookup
    ) -> None:
        self._channels = channels
        self._journal = journal
        self._node_secret = node_secret
        self._lookup = lookup
        self._forwards: dict[HtlcKey, forward.Forward] = {}  # by the downstream HTLC
        self._by_upstream: dict[HtlcKey, HtlcKey] = {}
        self.payee: Payee
        self.payer: Payer
        self.height = 0
        self.missed_blocks: Callable[[], int] = int  # by how much the real height may be above ours
        self.counters = Counters()
        self.resting = False  # the backend stops: nothing new is begun

    @property
    def pending_forwards(self) -> int:
        return len(self._forwards)

    @property
    def late_height(self) -> int:
        """The chain's, as late as it may be: for what must not come too late."""
        return self.height + self.missed_blocks()

    def load(self, store: Store) -> None:
        for (data,) in store.rows("SELECT data FROM forwards"):
            assert isinstance(data, bytes)
            self._enter(msgspec.msgpack.decode(data, type=forward.Forward))

    def resume(self) -> None:
        """After the channels have resumed: a preimage that did not make it upstream does so now."""
        for tie in list(self._forwards.values()):
            record = self._channels.by_id.get(tie.upstream.channel_id)
            if tie.preimage is not None and record is not None:
                self._channels.apply_all([record], ev.Fulfill(tie.upstream.htlc_id, tie.preimage))

    # of received HTLCs

    def htlc_ready(self, record: Record, effect: fx.HtlcReady) -> None:
        if self.resting:
            return  # committed and stored: the next life asks about it again
        htlc = _incoming(record, effect.htlc)
        if htlc.key in self._by_upstream:
            return  # forwarded before: whatever asks again, it is not paid twice
        opened = relay.peel(htlc, self._node_secret)
        if isinstance(opened, relay.FailMalformed):
            self._answer(
                htlc.key, ev.FailMalformed(htlc.key.htlc_id, opened.sha256_of_onion, opened.failure_code)
            )
            return
        if isinstance(opened, relay.Opened) and (effect.htlc.must_fail or self._is_too_late(opened)):
            opened = relay.refuse(opened)
        if isinstance(opened, relay.Fail):
            self.fail(FailHtlc(htlc.key, opened.reason))
            return
        decision = relay.decide(htlc, opened, self.height, self._lookup)
        match decision:
            case relay.Forward():
                self._forward(htlc, decision)
            case relay.Final():
                self.payee.part_arrived(htlc, decision)
            case relay.Fail(reason, failure):
                log.debug("not_forwarded", failure=type(failure).__name__)
                self.counters.failed += 1
                self.fail(FailHtlc(htlc.key, reason))
            case _:
                assert_never(decision)

    def _is_too_late(self, opened: relay.Opened) -> bool:
        """Whether a forward would rest on a height that may be wrong; payments to us weigh `late_height` themselves."""
        return opened.next_onion is not None and self.missed_blocks() > 0

    def htlc_settled(self, record: Record, effect: fx.HtlcSettled) -> None:
        """Upstream is irrevocably done: the tie has served."""
        upstream = HtlcKey(record.channel.channel_id, False, effect.htlc_id)
        downstream = self._by_upstream.pop(upstream, None)
        if downstream is not None:
            self._forwards.pop(downstream, None)
            self._journal.write(
                "DELETE FROM forwards WHERE out_channel = ? AND out_id = ?",
                downstream.channel_id,
                downstream.htlc_id,
            )

    def settle(self, effect: SettleHtlc) -> None:
        """Claim a received HTLC, connected or not."""
        self._answer(effect.key, ev.Fulfill(effect.key.htlc_id, effect.preimage))

    def fail(self, effect: FailHtlc) -> None:
        self._answer(effect.key, ev.Fail(effect.key.htlc_id, effect.reason))

    def _answer(self, key: HtlcKey, event: ev.Fulfill | ev.Fail | ev.FailMalformed) -> None:
        record = self._channels.by_id.get(key.channel_id)
        if record is not None:  # else the channel is history, and with it the HTLC
            self._channels.apply(record, event)

    # of offered HTLCs

    def offer(self, channel_id: bytes, event: ev.Add) -> HtlcKey | str:
        """Add an HTLC; its key, or why the channel does not take it."""
        record = self._channels.by_id.get(channel_id)
        if record is None:
            return "no such channel"
        for effect in self._channels.apply(record, event):
            if isinstance(effect, fx.Reply) and effect.command_id == event.command_id:
                if effect.error is not None:
                    return effect.error
                assert isinstance(effect.value, int)
                return HtlcKey(channel_id, True, effect.value)
        raise AssertionError("a channel answers every Add")

    def htlc_fulfilled(self, record: Record, effect: fx.HtlcFulfilled) -> None:
        key = HtlcKey(record.channel.channel_id, True, effect.htlc_id)
        tie = self._forwards.get(key)
        if tie is None:
            self.payer.part_fulfilled(key, effect.preimage)
            return
        if tie.preimage is None:
            self.counters.settled += 1
            self.counters.fee_msat += tie.fee_msat
        # The upstream HTLC has it in this very transaction; the tie keeps it should that fail.
        self._write(key, msgspec.structs.replace(tie, preimage=effect.preimage))
        self._advance(key, tie, forward.Fulfilled(effect.preimage))

    def htlc_failed(self, record: Record, effect: fx.HtlcFailed | fx.HtlcMalformed | fx.HtlcDropped) -> None:
        key = HtlcKey(record.channel.channel_id, True, effect.htlc_id)
        tie = self._forwards.get(key)
        if tie is None:
            self.payer.part_failed(key, effect)
            return
        self.counters.failed += 1
        match effect:
            case fx.HtlcFailed(_, reason):
                self._advance(key, tie, forward.Failed(reason))
            case fx.HtlcMalformed(_, digest, code):
                self._advance(key, tie, forward.Malformed(digest, code))
            case fx.HtlcDropped():
                # The id will be used again: the tie must not be found under it.
                self._advance(key, tie, forward.NotOffered())
                self._drop(key, tie)
            case _:
                assert_never(effect)

    # forwards

    def _forward(self, htlc: relay.IncomingHtlc, decision: relay.Forward) -> None:
        tie = forward.Forward(
            upstream=htlc.key,
            shared_secret=decision.shared_secret,
            payment_hash=htlc.payment_hash,
            amount_in_msat=htlc.amount_msat,
            amount_out_msat=decision.amount_msat,
            cltv_expiry_in=htlc.cltv_expiry,
            cltv_expiry_out=decision.cltv_expiry,
        )
        add = ev.Add(
            INTERNAL, decision.amount_msat, htlc.payment_hash, decision.cltv_expiry, decision.next_onion
        )
        downstream = self.offer(decision.channel_id, add)
        if isinstance(downstream, str):
            log.debug("not_offered", reason=downstream)
            self.counters.failed += 1
            for effect in forward.step(tie, forward.NotOffered())[1]:
                self._do(effect)
            return
        tie, _ = forward.step(tie, forward.Offered(downstream))
        self._enter(tie)
        self._write(downstream, tie)
        upstream = self._channels.by_id[htlc.key.channel_id]
        self._channels.apply(upstream, ev.Taken(htlc.key.htlc_id))
        self._journal.store(upstream)

    def _advance(self, key: HtlcKey, tie: forward.Forward, event: forward.Event) -> None:
        after, effects = forward.step(tie, event)
        self._forwards[key] = after
        for effect in effects:
            self._do(effect)

    def _do(self, effect: forward.Effect) -> None:
        match effect:
            case SettleHtlc():
                self.settle(effect)
            case FailHtlc():
                self.fail(effect)
            case _:
                assert_never(effect)

    def _enter(self, tie: forward.Forward) -> None:
        assert tie.downstream is not None
        self._forwards[tie.downstream] = tie
        self._by_upstream[tie.upstream] = tie.downstream

    def _drop(self, key: HtlcKey, tie: forward.Forward) -> None:
        self._forwards.pop(key, None)
        self._by_upstream.pop(tie.upstream, None)
        self._journal.write(
            "DELETE FROM forwards WHERE out_channel = ? AND out_id = ?", key.channel_id, key.htlc_id
        )

    def _write(self, key: HtlcKey, tie: forward.Forward) -> None:
        self._journal.write(
            PUT,
            key.channel_id,
            key.htlc_id,
            tie.upstream.channel_id,
            tie.upstream.htlc_id,
            msgspec.msgpack.encode(tie),
        )


def _incoming(record: Record, htlc: Htlc) -> relay.IncomingHtlc:
    return relay.IncomingHtlc(
        key=HtlcKey(record.channel.channel_id, False, htlc.id),
        amount_msat=htlc.amount_msat,
        payment_hash=htlc.payment_hash,
        cltv_expiry=htlc.cltv_expiry,
        onion=htlc.onion,
        path_key=htlc.path_key,
    )
