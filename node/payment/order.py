"""What a user asks to be paid, checked and turned into a Payment."""

from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment.invoice import Invoice
from node.payment.relay import MAX_EXPIRY_BLOCKS
from node.payment.send import Payment
from node.wire.features import Feature

BLOCK_MARGIN = 3  # blocks that may come while an HTLC is under way, or that the payee may be ahead of us
KEYSEND_EXPIRY_DELTA = 40  # nobody told us the payee's: more than the defaults in use
MAX_OVERPAYMENT = 2  # BOLT 4, failure messages: a payee refuses more than twice its amount


def pay_invoice(
    invoice: Invoice,
    *,
    source: bytes,
    network: str,
    amount_msat: int | None,
    max_fee_msat: int,
    max_parts: int,
    extra_expiry_delta: int,
    now_s: float,
    deadline_s: float,
) -> Payment:
    """The payment of an invoice; `extra_expiry_delta` hides the payee. Raises Refused where it must not be paid."""
    if invoice.network != network:
        raise Refused(f"an invoice for {invoice.network}, this is {network}")
    if now_s > invoice.expires_at_s:
        raise Refused("the invoice has expired")
    if invoice.node_id == source:
        raise Refused("an invoice of our own")
    if not invoice.features.supports(Feature.BASIC_MPP):
        max_parts = 1  # BOLT 11, feature bits
    return Payment(
        payment_hash=invoice.payment_hash,
        source=source,
        destination=invoice.node_id,
        amount_msat=_amount(invoice, amount_msat),
        max_fee_msat=max_fee_msat,
        max_parts=max_parts,
        deadline_s=deadline_s,
        final_expiry_delta=_expiry_delta(invoice.min_final_cltv_expiry_delta, extra_expiry_delta),
        payment_secret=invoice.payment_secret,
        payment_metadata=invoice.payment_metadata,
        route_hints=invoice.route_hints,
    )


def pay_keysend(
    destination: bytes,
    *,
    source: bytes,
    amount_msat: int,
    preimage: bytes,
    max_fee_msat: int,
    extra_expiry_delta: int,
    deadline_s: float,
) -> Payment:
    """A payment without an invoice (bLIP 3); `preimage` is random. Raises Refused."""
    if destination == source:
        raise Refused("a payment to ourselves")
    if amount_msat <= 0:
        raise Refused("an amount above zero is needed")
    return Payment(
        payment_hash=sha256(preimage),
        source=source,
        destination=destination,
        amount_msat=amount_msat,
        max_fee_msat=max_fee_msat,
        max_parts=1,
        deadline_s=deadline_s,
        final_expiry_delta=_expiry_delta(KEYSEND_EXPIRY_DELTA, extra_expiry_delta),
        keysend_preimage=preimage,
    )


def _amount(invoice: Invoice, amount_msat: int | None) -> int:
    if amount_msat is None:
        amount_msat = invoice.amount_msat
    if amount_msat is None or amount_msat <= 0:
        raise Refused("an amount above zero is needed")
    asked_msat = invoice.amount_msat
    if asked_msat is not None and not asked_msat <= amount_msat <= MAX_OVERPAYMENT * asked_msat:
        raise Refused(f"the invoice asks for {asked_msat} msat")
    return amount_msat


def _expiry_delta(least: int, extra: int) -> int:
    delta = least + BLOCK_MARGIN + extra
    if delta > MAX_EXPIRY_BLOCKS:
        raise Refused(f"the payee wants {least} blocks, the most is {MAX_EXPIRY_BLOCKS}")
    return delta
