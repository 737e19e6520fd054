"""A payment that finds our channels full waits for a slot, until its deadline."""

import asyncio

from node.backend.htlcs import HtlcKey
from node.backend.sending import Sending
from node.crypto.keys import public_key
from node.payment.order import pay_keysend
from node.payment.route import Hop
from node.payment.send import Phase

US, PEER = public_key(bytes(31) + b"\1"), public_key(bytes(31) + b"\2")
AMOUNT_MSAT = 5_000
DEADLINE_S = 60.0


class FakeJournal:
    """Everything is durable at once; `commit` is a transaction's end."""

    def __init__(self):
        self.hooks = []

    def after_commit(self, hook):
        self.hooks.append(hook)

    def commit(self):
        for hook in self.hooks:
            hook()

    def store(self, value):
        pass

    def write(self, sql, *parameters):
        pass

    def reply(self, output):
        output()


class FakeChannel:
    """One channel to the payee; channels, HTLC desk and pathfinder in one."""

    def __init__(self, slots):
        self.slots = slots
        self.offers = []
        self.height = 100

    def tell(self, news):
        news()

    def offer(self, channel_id, add):
        self.offers.append(add.amount_msat)
        self.slots -= 1
        return HtlcKey(channel_id, True, len(self.offers))

    def free_slots(self):
        return [self.slots]

    def find(self, request):
        if not self.slots:
            return "no route"
        return ((Hop(PEER, 1, request.amount_msat, 18),),)


class FakeRuntime:
    def __init__(self):
        self.now_s = 0.0

    def now(self):
        return self.now_s

    def entropy(self, size):
        return bytes(range(size))


class Node:
    def __init__(self, slots):
        self.runtime, self.journal, self.channel = FakeRuntime(), FakeJournal(), FakeChannel(slots)
        self.sending = Sending(self.runtime, self.journal, self.channel, self.channel, self.channel)
        self.sending.channel_of = lambda _: bytes(32)

    async def pay(self, number):
        payment = pay_keysend(
            PEER,
            source=US,
            amount_msat=AMOUNT_MSAT,
            preimage=number.to_bytes(32, "big"),
            max_fee_msat=0,
            extra_expiry_delta=0,
            deadline_s=DEADLINE_S,
        )
        running = asyncio.create_task(self.sending.pay(payment))
        await asyncio.sleep(0)
        return running


async def test_a_payment_waits_for_a_slot():
    node = Node(slots=1)
    payments = [await node.pay(number) for number in range(3)]
    assert len(node.channel.offers) == 1
    node.journal.commit()
    assert len(node.channel.offers) == 1
    node.channel.slots = 1
    node.journal.commit()
    assert len(node.channel.offers) == 2
    node.channel.slots = 5
    node.journal.commit()
    assert len(node.channel.offers) == 3
    for payment in payments:
        payment.cancel()


async def test_a_waiting_payment_keeps_its_deadline():
    node = Node(slots=0)
    running = await node.pay(1)
    node.runtime.now_s = DEADLINE_S
    node.sending.sweep()
    payment, result = await running
    assert payment.phase is Phase.FAILED
    assert result.preimage is None
    assert result.reason == "timed out"
    node.channel.slots = 1
    node.journal.commit()
    assert node.channel.offers == []


async def test_no_route_is_no_reason_to_wait():
    node = Node(slots=1)
    node.channel.find = lambda _: "no route"
    _, result = await (await node.pay(1))
    assert result.reason == "no route"
