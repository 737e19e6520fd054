"""Receiving: what is claimed, what is refused, and that never both happen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from node.crypto.failures import unwrap_failure
from node.crypto.hashes import sha256
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc
from node.payment.receive import PartArrived, PaymentIn, Promise, StorePaymentReceived, Tick, step
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
        assert run(waiting, Tick(4_059.9))[1] == []
        payment, effects = run(waiting, Tick(4_060.0))
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
        assert run(self.paid, Tick(1e9)) == (self.paid, [])


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
    | st.builds(Tick, st.sampled_from((4_010.0, 4_070.0))),
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(events)
def test_all_or_nothing(drawn):
    """Claimed sets reach the invoice's amount, and no HTLC is both claimed and failed after it joined."""
    payment, claimed, failed_then = INVOICED, set(), set()
    for event in drawn:
        payment, effects = step(payment, event)
        settled = {e.key for e in effects if isinstance(e, SettleHtlc)}
        failed = {e.key for e in effects if isinstance(e, FailHtlc)}
        assert not settled & failed
        assert not failed & claimed
        assert len(settled) + len(failed) == sum(isinstance(e, SettleHtlc | FailHtlc) for e in effects)
        claimed |= settled
        failed_then |= failed
        if claimed:
            assert payment.preimage == PREIMAGE
            assert sum(p.amount_msat for p in payment.parts) >= 1_000
            assert {p.key for p in payment.parts} >= claimed
