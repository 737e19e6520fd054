"""Receiving: the HTLCs of one payment hash that end at us, held together until they can all be claimed.

One value per payment hash. While nothing is claimed or held it may as well be lost, since every effect can be asked
for again by an HTLC that arrives again. A held set is stored: by the time it arrives again, its invoice may have expired.
"""

from collections.abc import Callable
from enum import Enum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment.htlc import FailHtlc, HtlcKey, SettleHtlc, fail_htlc
from node.payment.invoice import Invoice
from node.payment.relay import IncomingHtlc
from node.wire.bolt4 import (
    Failure,
    HopPayload,
    IncorrectOrUnknownPaymentDetails,
    MppTimeout,
    TemporaryNodeFailure,
)

MPP_TIMEOUT_S = 60  # BOLT 4, basic multi-part payments: wait at least so long
MAX_PARTS = 100  # of one payment: each takes one of a peer's slots while it waits
MIN_FINAL_CLTV_EXPIRY_DELTA = 18  # BOLT 11, for what was not invoiced
# A held set is given back so long before its first expiry: 2R+G+S of BOLT 2, when a claim would go to the chain, and two
# blocks more, in which a settlement that just made it is committed.
HOLD_MARGIN_BLOCKS = 20


class Phase(Enum):
    """Of what is not claimed."""

    OPEN = "open"
    HELD = "held"  # complete; waits for Settle or Cancel
    CANCELLED = "cancelled"  # for ever


class Promise(Struct, frozen=True, kw_only=True):
    """What an invoice of ours promised, and the secret that it sells; with `hold`, somebody else may have that."""

    preimage: bytes | None
    payment_secret: bytes
    amount_msat: int | None
    expires_at_s: int
    min_final_cltv_expiry_delta: int
    payment_metadata: bytes | None = None
    hold: bool = False  # a complete set is not claimed before a Settle


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
    deadline_s: float | None = None  # when a Tick will give an incomplete set up
    release_height: int | None = None  # when a Tick will give a held set up
    preimage: bytes | None = None
    phase: Phase = Phase.OPEN

    @property
    def is_blank(self) -> bool:
        """Whether nothing would be lost with it."""
        return self.promise is None and not self.parts

    @property
    def status(self) -> str:
        """open, held, cancelled or settled."""
        return self.phase.value if self.preimage is None else "settled"

    @property
    def amount_msat(self) -> int:
        """What its HTLCs bring."""
        return sum(part.amount_msat for part in self.parts)


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
    height: int


class Settle(Struct, frozen=True):
    """Claim what is held; once it is claimed, repeating it does nothing."""

    preimage: bytes
    height: int


class Cancel(Struct, frozen=True):
    """Give back what there is, and take nothing more."""

    height: int


class StorePayment(Struct, frozen=True):
    """Make the value that this comes with durable, together with what follows."""


class StorePaymentReceived(Struct, frozen=True):
    """Make it durable, with the value that it comes with, before anything is claimed."""

    payment_hash: bytes
    preimage: bytes
    amount_msat: int
    keysend: bool


Event = PartArrived | Tick | Settle | Cancel
Effect = StorePayment | StorePaymentReceived | SettleHtlc | FailHtlc
Effects = tuple[Effect, ...]
Step = tuple[PaymentIn, Effects]


def promise(invoice: Invoice, preimage: bytes | None, *, hold: bool = False) -> Promise:
    """What to keep of an invoice of ours; without a preimage it is one that holds."""
    assert preimage is not None or hold, "only what is held can do without"
    assert preimage is None or sha256(preimage) == invoice.payment_hash, "the invoice sells this preimage"
    return Promise(
        preimage=preimage,
        payment_secret=invoice.payment_secret,
        amount_msat=invoice.amount_msat,
        expires_at_s=invoice.expires_at_s,
        min_final_cltv_expiry_delta=invoice.min_final_cltv_expiry_delta,
        payment_metadata=invoice.payment_metadata,
        hold=hold,
    )


def step(payment: PaymentIn, event: Event) -> Step:
    """Advance by one event. An HTLC gets its answer now, or with the rest of its set.

    Raises Refused for a Settle or a Cancel that comes too late, or for nothing.
    """
    match event:
        case PartArrived():
            return _receive(payment, event)
        case Tick():
            return _pass_time(payment, event)
        case Settle():
            return _settle(payment, event)
        case Cancel(height=height):
            return _cancel(payment, height)
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
    if payment.phase is not Phase.OPEN:
        return payment, (_unknown(event),)
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
        after, failed = _drop_set(payment, lambda part: _details(part.amount_msat, event.height))
        return after, (*failed, _unknown(event))
    release_height = event.htlc.cltv_expiry - HOLD_MARGIN_BLOCKS
    joined = replace(
        payment,
        parts=(*payment.parts, _part(event)),
        total_msat=data.total_msat,
        deadline_s=payment.deadline_s or event.now_s + MPP_TIMEOUT_S,
        release_height=min(payment.release_height or release_height, release_height),
    )
    if sum(part.declared_msat for part in joined.parts) < joined.total_msat:
        return joined, ()
    if promise.hold:
        return replace(joined, phase=Phase.HELD, deadline_s=None), (StorePayment(),)
    assert promise.preimage is not None
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
    claimed = replace(payment, preimage=preimage, deadline_s=None, release_height=None)
    settled = tuple(SettleHtlc(part.key, preimage) for part in payment.parts)
    stored = StorePaymentReceived(payment.payment_hash, preimage, payment.amount_msat, keysend)
    return claimed, (stored, *settled)


def _pass_time(payment: PaymentIn, tick: Tick) -> Step:
    if payment.preimage is not None:
        return payment, ()
    if payment.phase is Phase.HELD:
        return _cancel(payment, tick.height) if _is_too_late(payment, tick.height) else (payment, ())
    if payment.deadline_s is not None and tick.now_s >= payment.deadline_s:
        return _drop_set(payment, lambda _: MppTimeout())
    return payment, ()


def _settle(payment: PaymentIn, event: Settle) -> Step:
    assert sha256(event.preimage) == payment.payment_hash, "one value per payment hash"
    if payment.preimage is not None:
        return payment, ()
    if payment.phase is not Phase.HELD:
        raise Refused(f"not held: the invoice is {payment.status}")
    if _is_too_late(payment, event.height):
        raise Refused("too late: what was held goes back before it expires")
    return _claim(payment, event.preimage, keysend=False)


def _cancel(payment: PaymentIn, height: int) -> Step:
    if payment.preimage is not None:
        raise Refused("it is paid already")
    if payment.phase is Phase.CANCELLED:
        return payment, ()
    after, failed = _drop_set(payment, lambda part: _details(part.amount_msat, height))
    return replace(after, phase=Phase.CANCELLED), (StorePayment(), *failed)


def _is_too_late(payment: PaymentIn, height: int) -> bool:
    return payment.release_height is not None and height >= payment.release_height


def _drop_set(payment: PaymentIn, why: Callable[[Part], Failure]) -> Step:
    assert payment.preimage is None, "never fail what was claimed"
    failed = tuple(fail_htlc(part.key, part.shared_secret, why(part)) for part in payment.parts)
    return replace(payment, parts=(), total_msat=0, deadline_s=None, release_height=None), failed


def _unknown(event: PartArrived) -> FailHtlc:
    return fail_htlc(event.htlc.key, event.shared_secret, _details(event.htlc.amount_msat, event.height))


def _details(amount_msat: int, height: int) -> IncorrectOrUnknownPaymentDetails:
    return IncorrectOrUnknownPaymentDetails(amount_msat, height)
