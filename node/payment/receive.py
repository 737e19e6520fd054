"""Receiving: the HTLCs of one payment hash that end at us, held together until they can all be claimed.

One value per payment hash. The backend stores it with the HTLCs' `Taken`; while nothing is claimed it may as well
be lost, since every effect can be asked for again by an HTLC that arrives again.
"""

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.crypto.hashes import sha256
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc, fail_htlc
from node.payment.invoice import Invoice
from node.payment.relay import IncomingHtlc
from node.wire.bolt4 import HopPayload, IncorrectOrUnknownPaymentDetails, MppTimeout, TemporaryNodeFailure

MPP_TIMEOUT_S = 60  # BOLT 4, basic multi-part payments: wait at least so long
MAX_PARTS = 100  # of one payment: each takes one of a peer's slots while it waits
MIN_FINAL_CLTV_EXPIRY_DELTA = 18  # BOLT 11, for what was not invoiced


class Promise(Struct, frozen=True, kw_only=True):
    """What an invoice of ours promised, and the secret that it sells."""

    preimage: bytes
    payment_secret: bytes
    amount_msat: int | None
    expires_at_s: int
    min_final_cltv_expiry_delta: int
    payment_metadata: bytes | None = None


class Part(Struct, frozen=True):
    """An HTLC of the set."""

    key: HtlcKey
    amount_msat: int  # as it arrived
    declared_msat: int  # what its payload says, never more
    shared_secret: bytes


class PaymentIn(Struct, frozen=True, kw_only=True):
    """All that was received for one payment hash; `preimage` is set once it is claimed, and then for ever."""

    payment_hash: bytes
    promise: Promise | None = None
    parts: tuple[Part, ...] = ()
    total_msat: int = 0
    deadline_s: float | None = None  # when a Tick will give the set up
    preimage: bytes | None = None

    @property
    def is_blank(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.promise is None and not self.parts


class PartArrived(Struct, frozen=True, kw_only=True):
    """An HTLC that is irrevocably committed and whose onion ends here; repeated after a restart."""

    htlc: IncomingHtlc
    payload: HopPayload
    shared_secret: bytes
    height: int
    now_s: float


class Tick(Struct, frozen=True):
    """The set's deadline may have passed."""

    now_s: float


class StorePaymentReceived(Struct, frozen=True):
    """Make it durable, with the value that it comes with, before anything is claimed."""

    payment_hash: bytes
    preimage: bytes
    amount_msat: int
    keysend: bool


Event = PartArrived | Tick
Effect = StorePaymentReceived | SettleHtlc | FailHtlc
Effects = tuple[Effect, ...]
Step = tuple[PaymentIn, Effects]


def promise(invoice: Invoice, preimage: bytes) -> Promise:
    """What to keep of an invoice of ours."""
    assert sha256(preimage) == invoice.payment_hash, "the invoice sells this preimage"
    return Promise(
        preimage=preimage,
        payment_secret=invoice.payment_secret,
        amount_msat=invoice.amount_msat,
        expires_at_s=invoice.expires_at_s,
        min_final_cltv_expiry_delta=invoice.min_final_cltv_expiry_delta,
        payment_metadata=invoice.payment_metadata,
    )


def step(payment: PaymentIn, event: Event) -> Step:
    """Advance by one event. An HTLC gets its answer now, or with the rest of its set."""
    match event:
        case PartArrived():
            return _receive(payment, event)
        case Tick(now_s=now_s):
            if payment.preimage is None and payment.deadline_s is not None and now_s >= payment.deadline_s:
                return _drop_set(payment, MppTimeout())
            return payment, ()
        case _:
            assert_never(event)


def _receive(payment: PaymentIn, event: PartArrived) -> Step:
    assert event.htlc.payment_hash == payment.payment_hash, "one value per payment hash"
    known = any(part.key == event.htlc.key for part in payment.parts)
    if payment.preimage is not None:
        # Claimed HTLCs are claimed again, others find the hash used up (BOLT 4: may be treated as unknown).
        return payment, (SettleHtlc(event.htlc.key, payment.preimage) if known else _unknown(event),)
    if known:
        return payment, ()
    if payment.promise is None:
        return _receive_keysend(payment, event)
    if not _is_kept(payment.promise, event):
        return payment, (_unknown(event),)
    return _join(payment, payment.promise, event)


def _is_kept(promise: Promise, event: PartArrived) -> bool:
    """Whether an HTLC is what we asked for (BOLT 4, failure messages, final node): one answer for all that is not."""
    data = event.payload.payment_data
    if data is None or data.payment_secret != promise.payment_secret:
        return False
    least_msat = promise.amount_msat or 1
    most_msat = data.total_msat if promise.amount_msat is None else 2 * promise.amount_msat
    return (
        least_msat <= data.total_msat <= most_msat
        and event.now_s <= promise.expires_at_s
        and event.htlc.cltv_expiry >= event.height + promise.min_final_cltv_expiry_delta
        and event.payload.payment_metadata == promise.payment_metadata
    )


def _join(payment: PaymentIn, promise: Promise, event: PartArrived) -> Step:
    data = event.payload.payment_data
    assert data is not None
    if len(payment.parts) >= MAX_PARTS:
        return payment, (fail_htlc(event.htlc.key, event.shared_secret, TemporaryNodeFailure()),)
    if payment.parts and data.total_msat != payment.total_msat:
        # BOLT 4, basic multi-part payments: one total for all, or the whole set fails
        after, failed = _drop_set(payment, _details(event))
        return after, (*failed, _unknown(event))
    joined = replace(
        payment,
        parts=(*payment.parts, _part(event)),
        total_msat=data.total_msat,
        deadline_s=payment.deadline_s or event.now_s + MPP_TIMEOUT_S,
    )
    if sum(part.declared_msat for part in joined.parts) < joined.total_msat:
        return joined, ()
    return _claim(joined, promise.preimage, keysend=False)


def _receive_keysend(payment: PaymentIn, event: PartArrived) -> Step:
    """A payment without invoice (bLIP 3): the origin brings the preimage along; in one part, for nothing proves that two have one origin."""
    preimage, data = event.payload.keysend_preimage, event.payload.payment_data
    amount_msat = event.payload.amt_to_forward
    if (
        preimage is None
        or sha256(preimage) != payment.payment_hash
        or (data is not None and data.total_msat != amount_msat)
        or event.htlc.cltv_expiry < event.height + MIN_FINAL_CLTV_EXPIRY_DELTA
    ):
        return payment, (_unknown(event),)
    return _claim(replace(payment, parts=(_part(event),)), preimage, keysend=True)


def _part(event: PartArrived) -> Part:
    declared_msat = event.payload.amt_to_forward
    assert declared_msat is not None, "relay.decide lets no other payload through"
    return Part(event.htlc.key, event.htlc.amount_msat, declared_msat, event.shared_secret)


def _claim(payment: PaymentIn, preimage: bytes, *, keysend: bool) -> Step:
    amount_msat = sum(part.amount_msat for part in payment.parts)
    claimed = replace(payment, preimage=preimage, deadline_s=None)
    settled = tuple(SettleHtlc(part.key, preimage) for part in payment.parts)
    return claimed, (StorePaymentReceived(payment.payment_hash, preimage, amount_msat, keysend), *settled)


def _drop_set(payment: PaymentIn, failure: MppTimeout | IncorrectOrUnknownPaymentDetails) -> Step:
    assert payment.preimage is None, "never fail what was claimed"
    failed = tuple(fail_htlc(part.key, part.shared_secret, failure) for part in payment.parts)
    return replace(payment, parts=(), total_msat=0, deadline_s=None), failed


def _unknown(event: PartArrived) -> FailHtlc:
    return fail_htlc(event.htlc.key, event.shared_secret, _details(event))


def _details(event: PartArrived) -> IncorrectOrUnknownPaymentDetails:
    return IncorrectOrUnknownPaymentDetails(event.htlc.amount_msat, event.height)
