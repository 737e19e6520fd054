"""What is paid in a crash world, and that it was paid once or not at all."""

from hashlib import sha256

import msgspec
from crash_world import PAY_TASK


class Order(msgspec.Struct, frozen=True):
    """A payment that somebody will make."""

    payer: str
    payee: str
    amount_msat: int
    bolt11: str
    payment_hash: bytes
    is_known: bool = True  # to its payee


def start_paying(world, orders):
    for order in orders:
        node = world[order.payer]
        node.runtime.spawn(_pay(node, order), PAY_TASK)


async def _pay(node, order):
    await node.backend.commands.pay(bolt11=order.bolt11)


def check_payments(world, orders, before):
    """Paid once or not at all, the same at both ends, and nobody has a millisatoshi that is not accounted for."""
    expected = dict(before)
    settled = []
    for order in orders:
        payment = world[order.payer].payment(order.payment_hash)
        received_msat = world[order.payee].received_msat(order.payment_hash)
        if payment is None:  # the payer died before it had decided anything
            assert received_msat == 0, order
            continue
        assert not payment.is_running, order
        assert (payment.preimage is not None) == (received_msat > 0), order
        if payment.preimage is None:
            continue
        assert order.is_known
        assert sha256(payment.preimage).digest() == order.payment_hash
        assert received_msat == order.amount_msat
        assert payment.fee_msat >= 0
        expected[order.payer] -= order.amount_msat + payment.fee_msat
        expected[order.payee] += received_msat
        expected["B"] += payment.fee_msat
        settled.append(order)
    assert {name: node.balance_msat for name, node in world.nodes.items()} == expected
    return settled
