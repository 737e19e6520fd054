"""No invoice is paid twice, however two attempts at it interleave."""

import asyncio

import pytest
from test_sending_room import PEER, US, Node

from node.backend.htlcs import HtlcKey
from node.crypto.hashes import sha256
from node.errors import Refused
from node.payment.send import Payment

PREIMAGE = bytes(range(32))


class SlowReads:
    """The database answers each question when it is let, and with what was true when it was asked."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []

    async def run_blocking(self, lane, work):
        rows, gate = work(), asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return rows

    def rows(self, sql, parameters=()):
        return []


def invoice() -> Payment:
    return Payment(
        payment_hash=sha256(PREIMAGE),
        source=US,
        destination=PEER,
        amount_msat=5_000,
        max_fee_msat=0,
        max_parts=1,
        deadline_s=60.0,
        final_expiry_delta=18,
        payment_secret=bytes(32),
    )


async def test_a_second_attempt_that_began_before_the_first_was_settled_pays_nothing() -> None:
    node, reads = Node(slots=5), SlowReads()
    node.runtime.run_blocking = reads.run_blocking
    node.channel.learn = lambda _observations: None
    node.sending.load(reads)
    first = asyncio.create_task(node.sending.pay(invoice()))
    second = asyncio.create_task(node.sending.pay(invoice()))
    await asyncio.sleep(0)
    reads.gates[0].set()
    for _ in range(5):  # turns of the loop: the answer, then the HTLC
        await asyncio.sleep(0)
    node.sending.part_fulfilled(HtlcKey(bytes(32), True, 1), PREIMAGE)
    assert (await first)[1].preimage == PREIMAGE
    for gate in reads.gates:
        gate.set()

    with pytest.raises(Refused):
        async with asyncio.timeout(1):
            await second
    assert len(node.channel.offers) == 1
