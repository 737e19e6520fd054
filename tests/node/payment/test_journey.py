"""Whole payments over hops in memory: built, peeled, decided, held, claimed; failures blamed where they arose."""

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from node.crypto import keys
from node.crypto.hashes import sha256
from node.payment import forward, receive, relay, send
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc
from node.payment.invoice import Invoice, decode, encode
from node.payment.order import pay_invoice, pay_keysend
from node.payment.relay import IncomingHtlc, OutgoingChannel
from node.payment.route import Hop
from node.wire.features import Feature, Features

HEIGHT = 700_000
NOW_S = 1_000.0
NAMES = ("alice", "bob", "carol", "dave", "erin")
SECRETS = {name: bytes((n,)) * 32 for n, name in enumerate(NAMES, start=1)}
IDS = {name: keys.public_key(secret) for name, secret in SECRETS.items()}
PREIMAGE = b"\x77" * 32
DELTA, BASE_MSAT = 40, 1_000


class Network:
    """alice - bob - carol - dave - erin, channel n after the n-th name; an HTLC is answered before the call returns."""

    def __init__(self, promise: receive.Promise | None, payment_hash: bytes, **faults) -> None:
        self.payment_in = receive.PaymentIn(payment_hash=payment_hash, promise=promise)
        self.faults = faults  # by the name of the hop: changes to its outgoing channel, or a failure code
        self.forwards: dict[HtlcKey, forward.Forward] = {}
        self.effects: list = []
        self.serial = 0

    def offer(
        self, index: int, amount_msat: int, payment_hash: bytes, cltv_expiry: int, onion: bytes
    ) -> HtlcKey:
        """Over channel `index`, to the name after it."""
        self.serial += 1
        key = HtlcKey(bytes((index,)) * 32, offered=False, htlc_id=self.serial)
        htlc = IncomingHtlc(
            key=key, amount_msat=amount_msat, payment_hash=payment_hash, cltv_expiry=cltv_expiry, onion=onion
        )
        name = NAMES[index]
        match relay.peel(htlc, SECRETS[name]):
            case relay.Opened() as opened:
                self.decide(name, htlc, opened)
            case relay.Fail(reason=reason):
                self.effects.append(FailHtlc(key, reason))
            case relay.FailMalformed() as malformed:
                self.effects.append((key, malformed))
        return key

    def decide(self, name: str, htlc: IncomingHtlc, opened: relay.Opened) -> None:
        match relay.decide(htlc, opened, HEIGHT, lambda scid: self.lookup(name, scid)):
            case relay.Fail(reason=reason):
                self.effects.append(FailHtlc(htlc.key, reason))
            case relay.Forward() as decided:
                self.relay_on(name, htlc, decided)
            case relay.Final(payload=payload, shared_secret=shared_secret):
                arrived = receive.PartArrived(
                    htlc=htlc, payload=payload, shared_secret=shared_secret, height=HEIGHT, now_s=NOW_S
                )
                self.payment_in, effects = receive.step(self.payment_in, arrived)
                self.effects += effects

    def relay_on(self, name: str, htlc: IncomingHtlc, decided: relay.Forward) -> None:
        onion = decided.next_onion if self.faults.get(name) != "garbles" else b"\x01" + decided.next_onion[1:]
        down = self.offer(
            NAMES.index(name) + 1, decided.amount_msat, htlc.payment_hash, decided.cltv_expiry, onion
        )
        self.forwards[down] = forward.Forward(
            upstream=htlc.key,
            downstream=down,
            shared_secret=decided.shared_secret,
            payment_hash=htlc.payment_hash,
            amount_in_msat=htlc.amount_msat,
            amount_out_msat=decided.amount_msat,
            cltv_expiry_in=htlc.cltv_expiry,
            cltv_expiry_out=decided.cltv_expiry,
        )

    def lookup(self, name: str, scid: int) -> tuple[OutgoingChannel, ...]:
        if scid != NAMES.index(name) + 1:
            return ()
        channel = OutgoingChannel(
            channel_id=bytes((scid,)) * 32,
            fee_base_msat=BASE_MSAT,
            fee_proportional_millionths=0,
            cltv_expiry_delta=DELTA,
            htlc_minimum_msat=1,
            htlc_maximum_msat=10**9,
            enabled=True,
            usable=True,
            spendable_msat=10**9,
        )
        fault = self.faults.get(name)
        return (replace(channel, **fault) if isinstance(fault, dict) else channel,)

    def answers(self) -> list[tuple[HtlcKey, object]]:
        """What comes back to the origin: by the HTLC that it offered."""
        out = []
        while self.effects:
            match self.effects.pop(0):
                case SettleHtlc(key=key, preimage=preimage):
                    self.back(key, forward.Fulfilled(preimage), preimage, out)
                case FailHtlc(key=key, reason=reason):
                    self.back(key, forward.Failed(reason), send.ReturnPacket(reason), out)
                case (HtlcKey() as key, relay.FailMalformed(sha256_of_onion=digest, failure_code=code)):
                    self.back(key, forward.Malformed(digest, code), send.MalformedOnion(code), out)
                case receive.StorePaymentReceived():
                    pass
        return out

    def back(self, key: HtlcKey, event: forward.Event, answer: object, out: list) -> None:
        tie = self.forwards.get(key)
        if tie is None:
            out.append((key, answer))
            return
        self.forwards[key], effects = forward.step(tie, event)
        self.effects += effects


def route(amount_msat: int, final_delta: int, hops: int = 4):
    return tuple(
        Hop(IDS[NAMES[n]], n, amount_msat + (hops - n) * BASE_MSAT, final_delta + (hops - n) * DELTA)
        for n in range(1, hops + 1)
    )


class Outcome(Struct, frozen=True):
    payment: send.Payment
    effects: tuple[send.Effect, ...]

    def report(self):
        return next((e.result for e in self.effects if isinstance(e, send.Report)), None)


def travel(payment: send.Payment, network: Network, amounts: list[int], hops: int = 4) -> Outcome:
    """Send all parts, then hand every answer back to the payment."""
    payment, _ = send.step(payment, send.Start(NOW_S))
    routes = tuple(route(amount, payment.final_expiry_delta, hops) for amount in amounts)
    found = send.RoutesFound(routes=routes, height=HEIGHT, entropy=b"\x42" * 32, now_s=NOW_S)
    payment, effects = send.step(payment, found)
    parts = {}
    for one in effects:
        if isinstance(one, send.SendPart):
            assert one.short_channel_id == 1
            key = network.offer(1, one.amount_msat, one.payment_hash, one.cltv_expiry, one.onion)
            parts[key] = one.part_id
    seen: tuple[send.Effect, ...] = ()
    for key, answer in network.answers():
        part_id = parts.pop(key)
        event = (
            send.PartFulfilled(part_id, answer)
            if isinstance(answer, bytes)
            else send.PartFailed(part_id, answer, NOW_S)
        )
        payment, more = send.step(payment, event)
        seen += more
    return Outcome(payment, seen)


def invoiced(amount_msat: int = 10_000_000, payee: str = "erin") -> tuple[Invoice, receive.Promise]:
    """An invoice as its text came over, and what its issuer kept."""
    invoice = Invoice(
        network="regtest",
        amount_msat=amount_msat,
        timestamp_s=int(NOW_S),
        payment_hash=sha256(PREIMAGE),
        payment_secret=b"\x31" * 32,
        description="a journey",
        features=Features.of(
            compulsory=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET), optional=(Feature.BASIC_MPP,)
        ),
        payment_metadata=b"metadata",
        node_id=IDS[payee],
    )
    return decode(encode(invoice, SECRETS[payee])), receive.promise(invoice, PREIMAGE)


def order(invoice: Invoice, **changes) -> send.Payment:
    limits = {
        "source": IDS["alice"],
        "network": "regtest",
        "amount_msat": None,
        "max_fee_msat": 100_000,
        "max_parts": 8,
        "extra_expiry_delta": 7,
        "now_s": NOW_S,
        "deadline_s": NOW_S + 60,
    }
    return pay_invoice(invoice, **(limits | changes))


def test_a_payment_arrives():
    invoice, promise = invoiced()
    network = Network(promise, invoice.payment_hash)
    outcome = travel(order(invoice), network, [10_000_000])
    assert outcome.report() == send.Settled(PREIMAGE, 3 * BASE_MSAT)
    assert {tie.fee_msat for tie in network.forwards.values()} == {BASE_MSAT}
    assert all(tie.preimage == PREIMAGE for tie in network.forwards.values())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 3_000_000), min_size=1, max_size=5), st.integers(1, 4))
def test_parts_and_lengths(amounts, hops):
    invoice, promise = invoiced(sum(amounts), NAMES[hops])
    outcome = travel(order(invoice), Network(promise, invoice.payment_hash), amounts, hops)
    assert outcome.report() == send.Settled(PREIMAGE, len(amounts) * (hops - 1) * BASE_MSAT)
    assert outcome.payment.parts == ()
    assert outcome.payment.settled_msat == sum(amounts)


def test_an_incomplete_set_times_out():
    invoice, promise = invoiced()
    network = Network(promise, invoice.payment_hash)
    outcome = travel(order(invoice), network, [4_000_000, 3_000_000])
    assert outcome.effects == ()
    network.payment_in, effects = receive.step(network.payment_in, receive.Tick(NOW_S + 60, HEIGHT))
    network.effects += effects
    payment = outcome.payment
    for part, (_, answer) in zip(payment.parts, network.answers(), strict=True):
        payment, _ = send.step(payment, send.PartFailed(part.part_id, answer, NOW_S + 60))
    payment, effects = send.step(payment, send.Timeout(NOW_S + 60))
    assert effects == (send.Report(send.Failed("timed out (last: payee: MppTimeout 0x0017)")),)


def test_keysend():
    limits = {"max_fee_msat": 9_000, "extra_expiry_delta": 0, "deadline_s": NOW_S + 60}
    payment = pay_keysend(IDS["erin"], source=IDS["alice"], amount_msat=5_000, preimage=PREIMAGE, **limits)
    outcome = travel(payment, Network(None, sha256(PREIMAGE)), [5_000])
    assert outcome.report() == send.Settled(PREIMAGE, 3 * BASE_MSAT)


def test_an_unknown_invoice_is_refused_by_the_payee():
    invoice, _ = invoiced()
    outcome = travel(order(invoice), Network(None, invoice.payment_hash), [10_000_000])
    assert outcome.report() == send.Failed("payee: IncorrectOrUnknownPaymentDetails 0x400f")


def test_another_secret_is_refused_by_the_payee():
    invoice, promise = invoiced()
    network = Network(replace(promise, payment_secret=bytes(32)), invoice.payment_hash)
    assert isinstance(travel(order(invoice), network, [10_000_000]).report(), send.Failed)
    assert network.payment_in.preimage is None


FAULTS = (
    ({"fee_base_msat": BASE_MSAT + 1}, "FeeInsufficient"),
    ({"cltv_expiry_delta": DELTA + 1}, "IncorrectCltvExpiry"),
    ({"htlc_minimum_msat": 10**8}, "AmountBelowMinimum"),
    ({"enabled": False}, "ChannelDisabled"),
    ({"usable": False}, "TemporaryChannelFailure"),
    ({"spendable_msat": 1}, "TemporaryChannelFailure"),
    ("garbles", "InvalidOnionVersion"),
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES[1:4]), st.sampled_from(FAULTS))
def test_the_failing_hop_is_blamed(name, fault):
    invoice, promise = invoiced()
    what, failure = fault
    outcome = travel(order(invoice), Network(promise, invoice.payment_hash, **{name: what}), [10_000_000])
    assert outcome.payment.last_reason.startswith(f"hop {NAMES.index(name)}: {failure}")
    assert outcome.payment.parts == ()
    assert isinstance(outcome.effects[-1], send.FindRoutes)


def test_our_own_peer_cannot_read_the_onion():
    invoice, promise = invoiced()
    network = Network(promise, invoice.payment_hash)
    payment, _ = send.step(order(invoice), send.Start(NOW_S))
    bad = replace(route(10_000_000, payment.final_expiry_delta)[0], node_id=IDS["dave"])
    routes = ((bad, *route(10_000_000, payment.final_expiry_delta)[1:]),)
    payment, effects = send.step(
        payment, send.RoutesFound(routes=routes, height=HEIGHT, entropy=b"\x01" * 32, now_s=NOW_S)
    )
    sent = effects[0]
    network.offer(1, sent.amount_msat, sent.payment_hash, sent.cltv_expiry, sent.onion)
    ((_, answer),) = network.answers()
    payment, effects = send.step(payment, send.PartFailed(0, answer, NOW_S))
    assert payment.last_reason == "malformed onion: 0xc005"
    assert [c.short_channel_id for c in payment.excluded_channels] == [1]
