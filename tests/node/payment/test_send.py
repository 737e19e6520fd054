"""Sending: retries, blame, limits, and that nothing is paid twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack
from msgspec.structs import replace

from node.crypto import keys
from node.crypto.failures import build_failure, wrap_failure
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment.blame import ChannelDirection, Observation
from node.payment.invoice import Invoice
from node.payment.order import pay_invoice, pay_keysend
from node.payment.route import Hop
from node.payment.send import (
    Failed,
    FindRoutes,
    Learn,
    LocalRefusal,
    MalformedOnion,
    NoRoute,
    PartFailed,
    PartFulfilled,
    Payment,
    Phase,
    Report,
    ReturnPacket,
    RoutesFound,
    SendPart,
    Settled,
    Start,
    Timeout,
    UpdateChannel,
    step,
)
from node.wire import bolt4
from node.wire.features import Feature, Features

US, BOB, CAROL, DAVE = (keys.public_key(bytes((n,)) * 32) for n in range(1, 5))
PREIMAGE = b"\x07" * 32
PAYMENT = Payment(
    payment_hash=sha256(PREIMAGE),
    source=US,
    destination=DAVE,
    amount_msat=1_000,
    max_fee_msat=50,
    max_parts=4,
    deadline_s=100.0,
    final_expiry_delta=40,
    payment_secret=b"\x08" * 32,
)


def path(amount=1_000, first=1):
    """us -first- bob -2- carol -3- dave"""
    return (
        Hop(BOB, first, amount + 20, 120),
        Hop(CAROL, 2, amount + 10, 80),
        Hop(DAVE, 3, amount, 40),
    )


def found(*routes, now_s=1.0, entropy=b"\x55" * 32):
    return RoutesFound(routes=routes, height=500, entropy=entropy, now_s=now_s)


def run(payment, *events):
    effects = []
    for event in events:
        payment, effects = step(msgpack.decode(msgpack.encode(payment), type=Payment), event)
    return payment, effects


def packet(payment, part_id, index, failure):
    """A failure of hop `index`, wrapped on its way back."""
    secrets = next(part.shared_secrets for part in payment.parts if part.part_id == part_id)
    message = failure if isinstance(failure, bytes) else bolt4.encode_failure(failure)
    reason = build_failure(secrets[index], message)
    for secret in reversed(secrets[:index]):
        reason = wrap_failure(secret, reason)
    return ReturnPacket(reason)


def fails(payment, failure, part_id=0, now_s=2.0):
    """The payment after a part's failure: a LocalRefusal and the like, or (index, failure)."""
    if isinstance(failure, tuple):
        failure = packet(payment, part_id, *failure)
    return run(payment, PartFailed(part_id, failure, now_s))


def on(scid, source, target):
    return ChannelDirection(scid, int(source > target))


ONE, TWO, THREE = on(1, US, BOB), on(2, BOB, CAROL), on(3, CAROL, DAVE)


def test_a_payment_in_one_part():
    payment, (search,) = run(PAYMENT, Start(0.0))
    assert search == FindRoutes(
        destination=DAVE,
        amount_msat=1_000,
        max_fee_msat=50,
        max_parts=4,
        final_expiry_delta=40,
        route_hints=(),
        excluded_channels=(),
        excluded_nodes=(),
    )
    payment, (sent,) = run(payment, found(path()))
    assert (sent.part_id, sent.short_channel_id, sent.amount_msat, sent.cltv_expiry) == (0, 1, 1_020, 620)
    assert len(sent.onion) == 1366
    payment, (learn, report) = run(payment, PartFulfilled(0, PREIMAGE))
    assert learn == Learn(
        (Observation(ONE, 1_020, True), Observation(TWO, 1_010, True), Observation(THREE, 1_000, True))
    )
    assert report == Report(Settled(PREIMAGE, 20))
    assert payment.phase is Phase.SETTLED
    assert run(payment, PartFulfilled(0, PREIMAGE))[1] == ()


def test_several_parts():
    payment, sent = run(PAYMENT, Start(0.0), found(path(600), path(400, first=9)))
    assert [s.part_id for s in sent] == [0, 1]
    assert sent[0].onion != sent[1].onion
    assert payment.missing_msat == 0
    payment, (_, report) = run(payment, PartFulfilled(1, PREIMAGE))
    assert report == Report(Settled(PREIMAGE, 40))
    payment, effects = run(payment, PartFulfilled(0, PREIMAGE))
    assert [type(e) for e in effects] == [Learn]
    assert (payment.settled_msat, payment.parts) == (1_000, ())


def test_a_failed_part_alone_is_replaced():
    payment, _ = run(PAYMENT, Start(0.0), found(path(600), path(400, first=9)))
    payment, effects = fails(payment, (1, bolt4.TemporaryChannelFailure(b"update")), part_id=1)
    assert effects[:2] == (
        Learn(
            (
                Observation(on(9, US, BOB), 420, True),
                Observation(TWO, 410, True),
                Observation(THREE, 400, False),
            )
        ),
        UpdateChannel(b"update"),
    )
    assert (effects[2].amount_msat, effects[2].max_fee_msat, effects[2].max_parts) == (400, 30, 3)
    payment, (sent,) = run(payment, found(path(400, first=10)))
    assert sent.part_id == 2


class TestBlame:
    sent = run(PAYMENT, Start(0.0), found(path()))[0]

    def search_after(self, *failures):
        payment = self.sent
        for part_id, failure in enumerate(failures):
            payment, effects = fails(payment, failure, part_id)
            if part_id + 1 < len(failures):
                payment, _ = run(payment, found(path()))
        (search,) = (e for e in effects if isinstance(e, FindRoutes))
        return search.excluded_channels, search.excluded_nodes

    @pytest.mark.parametrize(
        ("failure", "channels", "nodes"),
        [
            ((0, bolt4.UnknownNextPeer()), (TWO,), ()),
            ((1, bolt4.PermanentChannelFailure()), (THREE,), ()),
            ((0, bolt4.ChannelDisabled(0, b"")), (TWO,), ()),
            ((0, bolt4.TemporaryNodeFailure()), (), (BOB,)),
            ((1, bolt4.PermanentNodeFailure()), (), (CAROL,)),
            ((0, bolt4.InvalidOnionHmac(bytes(32))), (TWO,), ()),
            ((0, bolt4.TemporaryChannelFailure(b"")), (), ()),
            ((0, bolt4.FeeInsufficient(1, b"")), (), ()),
            ((2, bolt4.MppTimeout()), (), ()),
            ((2, bolt4.FinalIncorrectHtlcAmount(1)), (), ()),
            ((2, bolt4.FeeInsufficient(1, b"")), (THREE,), ()),
            ((2, bolt4.InvalidOnionKey(bytes(32))), (THREE,), ()),
            ((0, b"\x00"), (TWO, THREE), ()),
            ((0, b""), (TWO, THREE), ()),
            ((0, b"\x10\x0c\x00"), (), ()),  # fee_insufficient, cut
            ((1, b"\x7f\xff"), (), (CAROL,)),
            (ReturnPacket(b""), (TWO, THREE), ()),
            (ReturnPacket(b"x" * 70_000), (TWO, THREE), ()),
            (MalformedOnion(0xC005), (ONE,), ()),
            (LocalRefusal("offline"), (ONE,), ()),
        ],
    )
    def test_once(self, failure, channels, nodes):
        assert self.search_after(failure) == (channels, nodes)

    def test_twice(self):
        failure = (0, bolt4.FeeInsufficient(1, b""))
        assert self.search_after(failure, failure) == ((TWO,), ())

    def test_the_payee_is_not_worn_out(self):
        failure = (2, bolt4.MppTimeout())
        assert self.search_after(failure, failure) == ((), ())

    def test_the_payee_refuses(self):
        payment, effects = fails(self.sent, (2, bolt4.IncorrectOrUnknownPaymentDetails(1_000, 500)))
        assert effects[-1] == Report(Failed("payee: IncorrectOrUnknownPaymentDetails 0x400f"))
        assert payment.phase is Phase.FAILED


def test_refused_while_another_part_is_out():
    """The payee took one part and refused another: no failure is reported that a preimage could belie."""
    payment, _ = run(PAYMENT, Start(0.0), found(path(600), path(400, first=9)))
    payment, effects = fails(payment, (2, bolt4.IncorrectOrUnknownPaymentDetails(1, 1)), part_id=1)
    assert [type(e) for e in effects] == [Learn]
    settled, effects = run(payment, PartFulfilled(0, PREIMAGE))
    assert effects[-1] == Report(Settled(PREIMAGE, 20))
    assert settled.phase is Phase.SETTLED
    failed, effects = fails(payment, (0, bolt4.TemporaryChannelFailure(b"")), part_id=0)
    assert effects[-1] == Report(Failed("payee: IncorrectOrUnknownPaymentDetails 0x400f"))
    assert failed.phase is Phase.FAILED


class TestLimits:
    searching = run(PAYMENT, Start(0.0))[0]

    @pytest.mark.parametrize(
        ("routes", "reason"),
        [
            ((), "no route"),
            ((path(1_001),), "routes for more than is missing"),
            ((path(200),) * 5, "routes above the fee limit"),
            (tuple((Hop(DAVE, n, 200, 40),) for n in range(5)), "more routes than parts"),
            (tuple((Hop(DAVE, n, 200, 40),) for n in range(4)), "routes for less than is missing"),
            (((Hop(DAVE, 1, 1_000, 2_017),),), "routes above the expiry limit"),
        ],
    )
    def test_hold_whatever_found_the_routes(self, routes, reason):
        _, effects = run(self.searching, found(*routes))
        assert effects == (Report(Failed(reason)),)

    def test_what_is_still_missing_is_searched_for(self):
        _, (sent, search) = run(self.searching, found(path(700)))
        assert isinstance(sent, SendPart)
        assert (search.amount_msat, search.max_fee_msat, search.max_parts) == (300, 30, 3)

    def test_no_route(self):
        assert run(self.searching, NoRoute("no path"))[1] == (Report(Failed("no path")),)

    def test_the_last_reason_is_told(self):
        payment, _ = run(self.searching, found(path()))
        payment, _ = fails(payment, LocalRefusal("offline"))
        assert run(payment, NoRoute("no path"))[1] == (Report(Failed("no path (last: offline)")),)

    def test_time(self):
        assert run(self.searching, Timeout(99.0))[1] == ()
        assert run(self.searching, Timeout(100.0))[1] == (Report(Failed("timed out")),)
        assert run(self.searching, found(path(), now_s=100.0))[1] == (Report(Failed("timed out")),)

    def test_time_with_a_part_out(self):
        payment, effects = run(self.searching, found(path()), Timeout(100.0))
        assert (effects, payment.phase) == ((), Phase.RUNNING)
        assert fails(payment, LocalRefusal("x"), now_s=101.0)[1] == (Report(Failed("timed out")),)
        assert run(payment, PartFulfilled(0, PREIMAGE))[1][-1] == Report(Settled(PREIMAGE, 20))

    def test_a_late_answer_to_a_search(self):
        payment, _ = run(self.searching, Timeout(100.0))
        assert run(payment, found(path())) == (replace(payment, searching=False), ())

    def test_tries(self):
        payment, tries = self.searching, 0
        while payment.phase is Phase.RUNNING:
            payment, (sent,) = run(payment, found(path()))
            payment, effects = fails(payment, (2, bolt4.MppTimeout()), sent.part_id)
            tries += 1
        assert tries == 60
        assert effects[-1] == Report(Failed("too many parts (last: payee: MppTimeout 0x0017)"))

    def test_metadata_that_leaves_no_room(self):
        payment = replace(self.searching, payment_metadata=bytes(1_250))
        assert run(payment, found(path()))[1] == (
            Report(Failed("the route's payloads do not fit into an onion")),
        )


def test_after_a_restart():
    payment, _ = run(PAYMENT, Start(0.0), found(path(600), path(400, first=9)))
    assert run(payment, Start(50.0))[1] == ()
    searching, _ = fails(payment, LocalRefusal("never added"))
    assert isinstance(run(searching, Start(50.0))[1][0], FindRoutes)


def test_answers_may_be_repeated():
    payment, _ = run(PAYMENT, Start(0.0), found(path()))
    again, _ = fails(payment, LocalRefusal("x"))
    assert run(again, PartFailed(0, LocalRefusal("x"), 2.0)) == (again, ())


INVOICE = Invoice(
    network="regtest",
    amount_msat=1_000,
    timestamp_s=1_000,
    payment_hash=bytes(32),
    payment_secret=b"\x08" * 32,
    description="",
    features=Features.of(optional=(Feature.BASIC_MPP, Feature.PAYMENT_SECRET)),
    payment_metadata=b"m",
    node_id=DAVE,
)
LIMITS = {
    "source": US,
    "network": "regtest",
    "amount_msat": None,
    "max_fee_msat": 9,
    "max_parts": 7,
    "extra_expiry_delta": 5,
    "now_s": 1_001.0,
    "deadline_s": 1_060.0,
}


class TestOrders:
    def test_an_invoice(self):
        payment = pay_invoice(INVOICE, **LIMITS)
        assert (payment.amount_msat, payment.max_parts, payment.final_expiry_delta) == (1_000, 7, 26)
        assert (payment.payment_secret, payment.payment_metadata) == (b"\x08" * 32, b"m")

    def test_an_invoice_for_one_part(self):
        assert pay_invoice(replace(INVOICE, features=Features()), **LIMITS).max_parts == 1

    @pytest.mark.parametrize(
        ("invoice", "limits"),
        [
            ({}, {"network": "bitcoin"}),
            ({}, {"now_s": 4_601.0}),
            ({}, {"source": DAVE}),
            ({}, {"amount_msat": 999}),
            ({}, {"amount_msat": 2_001}),
            ({"amount_msat": None}, {}),
            ({"amount_msat": None}, {"amount_msat": 0}),
            ({"min_final_cltv_expiry_delta": 2_016}, {}),
        ],
    )
    def test_refuses(self, invoice, limits):
        with pytest.raises(Refused):
            pay_invoice(replace(INVOICE, **invoice), **(LIMITS | limits))

    def test_keysend(self):
        limits = {
            "source": US,
            "preimage": PREIMAGE,
            "max_fee_msat": 1,
            "extra_expiry_delta": 0,
            "deadline_s": 9.0,
        }
        payment = pay_keysend(DAVE, amount_msat=5, **limits)
        assert (payment.payment_hash, payment.keysend_preimage, payment.max_parts) == (
            sha256(PREIMAGE),
            PREIMAGE,
            1,
        )
        for destination, amount_msat in ((US, 5), (DAVE, 0)):
            with pytest.raises(Refused):
                pay_keysend(destination, amount_msat=amount_msat, **limits)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_never_more_than_the_amount_and_one_report(data):
    """Whatever fails and succeeds in any order: never more out than asked, one report, no failure with parts out."""
    payment, effects = run(PAYMENT, Start(0.0))
    reports, now_s = [], 1.0
    for serial in range(40):
        reports += [e for e in effects if isinstance(e, Report)]
        assert payment.missing_msat >= 0
        assert payment.fee_msat <= payment.max_fee_msat
        assert len(reports) == (payment.phase is not Phase.RUNNING)
        if payment.phase is Phase.FAILED:
            assert payment.parts == ()
            assert payment.preimage is None
        now_s += data.draw(st.sampled_from((0.1, 0.1, 20.0)))
        choices = ["timeout"] + ["part"] * 3 * bool(payment.parts) + ["routes"] * 3 * payment.searching
        match data.draw(st.sampled_from(choices)):
            case "timeout":
                event = Timeout(now_s)
            case "part":
                part_id = data.draw(st.sampled_from(payment.parts)).part_id
                bad = (
                    packet(payment, part_id, data.draw(st.integers(0, 2)), data.draw(st.binary(max_size=8))),
                    ReturnPacket(data.draw(st.binary(max_size=300))),
                    MalformedOnion(data.draw(st.integers(0, 0xFFFF))),
                    LocalRefusal("x"),
                )
                event = data.draw(
                    st.sampled_from(
                        (*(PartFailed(part_id, one, now_s) for one in bad), PartFulfilled(part_id, PREIMAGE))
                    )
                )
            case "routes":
                amounts = data.draw(st.lists(st.sampled_from((100, 300, 500, 1_000)), max_size=3))
                event = found(
                    *(path(a, first=n) for n, a in enumerate(amounts)),
                    now_s=now_s,
                    entropy=bytes((serial,)) * 32,
                )
        payment, effects = run(payment, event)
