"""Receiving: what is claimed, what is refused, and that never both happen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from node.crypto.failures import unwrap_failure
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc
from node.payment.receive import (
    HOLD_MARGIN_BLOCKS,
    Cancel,
    PartArrived,
    PaymentIn,
    Phase,
    Promise,
    Settle,
    StorePayment,
    StorePaymentReceived,
    Tick,
    step,
)
from node.payment.relay import IncomingHtlc
from node.wire.bolt4 import (
    HopPayload,
    IncorrectOrUnknownPaymentDetails,
    MppTimeout,
    PaymentData,
    TemporaryNodeFailure,
    decode_failure,
)

HEIGHT = 100
PREIMAGE = b"\x07" * 32
HASH = sha256(PREIMAGE)
SECRET = b"\x08" * 32
SHARED = b"\x09" * 32
PROMISE = Promise(
    preimage=PREIMAGE,
    payment_secret=SECRET,
    amount_msat=1_000,
    expires_at_s=5_000,
    min_final_cltv_expiry_delta=30,
)
INVOICED = PaymentIn(payment_hash=HASH, promise=PROMISE)
HOLDING = replace(INVOICED, promise=replace(PROMISE, hold=True, preimage=None))
NOTHING = PaymentIn(payment_hash=HASH)


def key(number: int) -> HtlcKey:
    return HtlcKey(b"\x01" * 32, offered=False, htlc_id=number)


def part(number=0, amount=1_000, *, total=1_000, secret=SECRET, expiry=HEIGHT + 30, now_s=4_000.0, **payload):
    data = None if secret is None else PaymentData(secret, total)
    return PartArrived(
        htlc=IncomingHtlc(
            key=key(number), amount_msat=amount, payment_hash=HASH, cltv_expiry=expiry, onion=b""
        ),
        payload=HopPayload(amt_to_forward=amount, outgoing_cltv_value=expiry, payment_data=data, **payload),
        shared_secret=SHARED,
        height=HEIGHT,
        now_s=now_s,
    )


def tick(now_s=0.0, height=HEIGHT):
    return Tick(now_s, height)


def said(effect):
    assert isinstance(effect, FailHtlc)
    return decode_failure(unwrap_failure((SHARED,), effect.reason)[1])


def run(payment, *events):
    effects = []
    for event in events:
        payment, more = step(msgpack.decode(msgpack.encode(payment), type=PaymentIn), event)
        effects += more
    return payment, effects


def stored(amount, keysend=False):
    return StorePaymentReceived(HASH, PREIMAGE, amount, keysend)


def test_one_part():
    payment, effects = run(INVOICED, part())
    assert effects == [stored(1_000), SettleHtlc(key(0), PREIMAGE)]
    assert payment.preimage == PREIMAGE


def test_twice_the_amount_is_still_welcome():
    assert run(INVOICED, part(amount=2_000, total=2_000))[1][0] == stored(2_000)


def test_an_open_amount():
    payment = replace(INVOICED, promise=replace(PROMISE, amount_msat=None))
    assert run(payment, part(amount=7, total=7))[1][0] == stored(7)


@pytest.mark.parametrize(
    "event",
    [
        part(secret=b"\x00" * 32),
        part(secret=None),
        part(total=999),
        part(total=2_001),
        part(expiry=HEIGHT + 29),
        part(now_s=5_001.0),
        part(payment_metadata=b"unasked"),
        part(secret=None, keysend_preimage=PREIMAGE),
    ],
    ids=["secret", "no secret", "too little", "too much", "too soon", "expired", "metadata", "keysend"],
)
def test_one_answer_to_all_that_is_wrong(event):
    payment, effects = run(INVOICED, event)
    assert payment == INVOICED
    assert [said(e) for e in effects] == [IncorrectOrUnknownPaymentDetails(event.htlc.amount_msat, HEIGHT)]


def test_metadata_must_come_back():
    payment = replace(INVOICED, promise=replace(PROMISE, payment_metadata=b"m"))
    assert isinstance(said(run(payment, part())[1][0]), IncorrectOrUnknownPaymentDetails)
    assert run(payment, part(payment_metadata=b"m"))[1][0] == stored(1_000)


def test_an_unknown_hash():
    payment, effects = run(NOTHING, part())
    assert payment.is_blank
    assert said(effects[0]) == IncorrectOrUnknownPaymentDetails(1_000, HEIGHT)


class TestParts:
    def test_all_wait_for_the_last(self):
        payment, effects = run(INVOICED, part(0, 400), part(1, 400))
        assert effects == []
        assert payment.deadline_s == 4_060
        payment, effects = run(payment, part(2, 250))
        assert effects == [stored(1_050), *(SettleHtlc(key(n), PREIMAGE) for n in range(3))]

    def test_same_amount_and_hash_are_still_two(self):
        _, effects = run(INVOICED, part(0, 500), part(1, 500))
        assert effects[1:] == [SettleHtlc(key(0), PREIMAGE), SettleHtlc(key(1), PREIMAGE)]

    def test_the_same_part_again_is_one(self):
        payment, effects = run(INVOICED, part(0, 500), part(0, 500))
        assert effects == []
        assert len(payment.parts) == 1

    def test_time_runs_out(self):
        waiting, _ = run(INVOICED, part(0, 400), part(1, 400, now_s=4_030.0))
        assert run(waiting, tick(4_059.9))[1] == []
        payment, effects = run(waiting, tick(4_060.0))
        assert [said(e) for e in effects] == [MppTimeout()] * 2
        assert payment == INVOICED
        assert run(payment, part(2))[1][0] == stored(1_000)

    def test_two_totals_fail_the_set(self):
        payment, effects = run(INVOICED, part(0, 400), part(1, 400, total=1_500))
        assert [e.key for e in effects] == [key(0), key(1)]
        assert payment == INVOICED

    def test_a_bad_part_leaves_the_others(self):
        _, effects = run(INVOICED, part(0, 400), part(1, 600, secret=b"\x00" * 32), part(2, 600))
        assert [type(e) for e in effects] == [FailHtlc, StorePaymentReceived, SettleHtlc, SettleHtlc]
        assert effects[0].key == key(1)

    def test_there_is_a_most(self):
        payment, _ = run(INVOICED, *(part(n, 1) for n in range(100)))
        assert said(run(payment, part(100, 1))[1][0]) == TemporaryNodeFailure()


class TestPaidAlready:
    paid = run(INVOICED, part())[0]

    def test_another_part_is_refused(self):
        payment, effects = run(self.paid, part(1))
        assert payment == self.paid
        assert said(effects[0]) == IncorrectOrUnknownPaymentDetails(1_000, HEIGHT)

    def test_the_same_part_is_claimed_again(self):
        assert run(self.paid, part(0))[1] == [SettleHtlc(key(0), PREIMAGE)]

    def test_time_does_not_undo_it(self):
        assert run(self.paid, tick(1e9)) == (self.paid, [])


class TestHold:
    release_height = HEIGHT + 60 - HOLD_MARGIN_BLOCKS
    held = run(HOLDING, part(0, 400, expiry=HEIGHT + 90), part(1, 600, expiry=HEIGHT + 60))[0]

    def test_a_complete_set_is_stored_and_kept(self):
        payment, effects = run(HOLDING, part(0, 400), part(1, 600))
        assert effects == [StorePayment()]
        assert (payment.status, payment.amount_msat) == ("held", 1_000)
        assert run(payment, tick(1e9), part(0, 400), part(1, 600)) == (payment, [])

    def test_settle(self):
        payment, effects = run(self.held, Settle(PREIMAGE, HEIGHT))
        assert effects == [stored(1_000), SettleHtlc(key(0), PREIMAGE), SettleHtlc(key(1), PREIMAGE)]
        assert payment.status == "settled"
        assert run(payment, Settle(PREIMAGE, HEIGHT), tick(1e9, 1_000)) == (payment, [])
        with pytest.raises(Refused, match="paid"):
            step(payment, Cancel(HEIGHT))

    def test_cancel(self):
        payment, effects = run(self.held, Cancel(HEIGHT + 3))
        assert effects[0] == StorePayment()
        assert [said(e) for e in effects[1:]] == [
            IncorrectOrUnknownPaymentDetails(amount, HEIGHT + 3) for amount in (400, 600)
        ]
        assert payment.phase is Phase.CANCELLED
        assert run(payment, Cancel(HEIGHT)) == (payment, [])
        assert isinstance(said(run(payment, part(2))[1][0]), IncorrectOrUnknownPaymentDetails)
        with pytest.raises(Refused, match="cancelled"):
            step(payment, Settle(PREIMAGE, HEIGHT))

    def test_nothing_is_settled_before_it_is_complete(self):
        with pytest.raises(Refused, match="open"):
            run(HOLDING, part(0, 400), Settle(PREIMAGE, HEIGHT))

    def test_an_incomplete_set_times_out_as_any(self):
        payment, effects = run(HOLDING, part(0, 400), tick(4_060.0))
        assert (payment, [said(e) for e in effects]) == (HOLDING, [MppTimeout()])

    def test_it_goes_back_before_its_first_expiry(self):
        assert run(self.held, tick(1e9, self.release_height - 1)) == (self.held, [])
        payment, effects = run(self.held, tick(0, self.release_height))
        assert payment.phase is Phase.CANCELLED
        assert [type(e) for e in effects] == [StorePayment, FailHtlc, FailHtlc]

    def test_settling_can_come_too_late(self):
        assert run(self.held, Settle(PREIMAGE, self.release_height - 1))[0].preimage == PREIMAGE
        with pytest.raises(Refused, match="late"):
            step(self.held, Settle(PREIMAGE, self.release_height))

    def test_another_part_is_refused(self):
        payment, effects = run(self.held, part(2, 300))
        assert payment == self.held
        assert isinstance(said(effects[0]), IncorrectOrUnknownPaymentDetails)

    def test_an_ordinary_invoice_can_be_cancelled_too(self):
        payment, effects = run(INVOICED, part(0, 400), Cancel(HEIGHT))
        assert payment.status == "cancelled"
        assert [e.key for e in effects[1:]] == [key(0)]


class TestKeysend:
    event = part(secret=None, keysend_preimage=PREIMAGE)

    def test_is_claimed(self):
        payment, effects = run(NOTHING, self.event)
        assert effects == [stored(1_000, keysend=True), SettleHtlc(key(0), PREIMAGE)]
        assert not payment.is_blank
        assert run(payment, self.event)[1] == [SettleHtlc(key(0), PREIMAGE)]

    @pytest.mark.parametrize(
        "event",
        [
            part(secret=None, keysend_preimage=b"\x01" * 32),
            part(secret=SECRET, total=2_000, keysend_preimage=PREIMAGE),
            part(secret=None, keysend_preimage=PREIMAGE, expiry=HEIGHT + 17),
        ],
        ids=["preimage", "parts", "expiry"],
    )
    def test_is_refused(self, event):
        assert isinstance(said(run(NOTHING, event)[1][0]), IncorrectOrUnknownPaymentDetails)


events = st.lists(
    st.builds(
        part,
        st.integers(0, 6),
        st.sampled_from((1, 300, 500, 1_000)),
        total=st.sampled_from((1_000, 1_000, 1_000, 1_200)),
        secret=st.sampled_from((SECRET, SECRET, SECRET, b"\x00" * 32, None)),
    )
    | st.builds(tick, st.sampled_from((4_010.0, 4_070.0)), st.sampled_from((HEIGHT, HEIGHT, HEIGHT + 10)))
    | st.builds(Settle, st.just(PREIMAGE), st.sampled_from((HEIGHT, HEIGHT + 10)))
    | st.sampled_from((Cancel(HEIGHT), *[tick()] * 3)),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from((INVOICED, HOLDING)), events)
def test_all_or_nothing(payment, drawn):
    """Claimed sets reach the invoice's amount, and no HTLC is both claimed and failed after it joined."""
    claimed, failed_then, holds = set(), set(), payment is HOLDING
    for event in drawn:
        try:
            payment, effects = step(payment, event)
        except Refused:
            continue
        settled = {e.key for e in effects if isinstance(e, SettleHtlc)}
        failed = {e.key for e in effects if isinstance(e, FailHtlc)}
        assert not settled & failed
        assert not failed & claimed
        assert len(settled) + len(failed) == sum(isinstance(e, SettleHtlc | FailHtlc) for e in effects)
        assert not settled or not holds or isinstance(event, Settle | PartArrived)
        claimed |= settled
        failed_then |= failed
        if payment.status == "held":
            assert effects == () or StorePayment() in effects or isinstance(event, PartArrived)
            assert not claimed
            assert sum(p.amount_msat for p in payment.parts) >= 1_000
        if payment.status == "cancelled":
            assert not claimed
            assert not payment.parts
        if claimed:
            assert payment.preimage == PREIMAGE
            assert sum(p.amount_msat for p in payment.parts) >= 1_000
            assert {p.key for p in payment.parts} >= claimed
