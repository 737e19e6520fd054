"""Payments between the nodes of a demo: who, to whom, how much and how, all drawn from one seed."""

import asyncio
import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from lnsim.api_client import CallFailed, Node, Unreachable
from lnsim.demo_state import HUB

MAX_IN_FLIGHT = 24  # beyond this a slow machine would only queue, and latency would say nothing
MIN_AMOUNT_MSAT = 1_000
MAX_AMOUNT_MSAT = 60_000_000
HUB_SHARE = 0.3  # of payments made by or to the hub; the others pass through it
KEYSEND_SHARE = 0.5
EVENING_SHARE = 0.5  # of payments that go from the richer to the poorer: balances swing, and never run out
PAYMENT_TIMEOUT_S = 30.0
INVOICE_EXPIRY_S = 600
MAX_RECENT = 2_000  # latencies that the percentiles on the screen are taken from


class Payment(Struct, frozen=True):
    """What is to be paid."""

    payer: str
    payee: str
    amount_msat: int
    keysend: bool


class Outcome(Struct, frozen=True):
    """What became of it: settled, failed, or unknown where the payer could not be asked."""

    payment: Payment
    status: str
    fee_msat: int = 0
    latency_ms: float = 0.0
    reason: str = ""
    payment_hash: str = ""


class Plan:
    """An endless sequence of payments, the same for the same seed and names."""

    def __init__(self, seed: int, peers: list[str]) -> None:
        self._random = random.Random(seed)
        self._peers = peers
        self._balance: Counter[str] = Counter()

    def next(self) -> Payment:
        """Payer, payee, amount and kind of the next one."""
        draw = self._random
        payer, payee = draw.sample(self._peers, 2)
        if draw.random() < HUB_SHARE:
            payer, payee = (payer, HUB) if draw.random() < 0.5 else (HUB, payee)
        if draw.random() < EVENING_SHARE and self._richness(payer) < self._richness(payee):
            payer, payee = payee, payer
        low, high = math.log(MIN_AMOUNT_MSAT), math.log(MAX_AMOUNT_MSAT)
        amount_msat = round(math.exp(draw.uniform(low, high)))
        self._balance[payer] -= amount_msat
        self._balance[payee] += amount_msat
        return Payment(payer, payee, amount_msat, keysend=draw.random() < KEYSEND_SHARE)

    def _richness(self, name: str) -> int:
        """What a node won so far; the hub, with all the channels, counts as one that broke even."""
        return 0 if name == HUB else self._balance[name]

    def pause_s(self, rate_per_s: float) -> float:
        return self._random.expovariate(rate_per_s)


class Traffic:
    """Makes the plan's payments at a rate until stopped, and keeps the books."""

    def __init__(
        self,
        nodes: Mapping[str, Node],
        node_ids: Mapping[str, str],
        plan: Plan,
        rate_per_s: float,
        told: Callable[[Outcome], None],
    ) -> None:
        self.attempted = 0
        self.counts: Counter[str] = Counter()  # by status
        self.reasons: Counter[str] = Counter()
        self.latencies_ms: list[float] = []
        self.recent_ms: deque[float] = deque(maxlen=MAX_RECENT)
        self.balance_msat: Counter[str] = Counter()  # what settled payments did to each payer and payee
        self.going = asyncio.Event()
        self.going.set()
        self._nodes = nodes
        self._node_ids = node_ids
        self._plan = plan
        self._rate_per_s = rate_per_s
        self._told = told
        self._known: dict[str, set[str]] = {name: set() for name in nodes}  # hashes, by payer
        self._unknown: set[str] = set()  # payers that could not be asked about all of their payments
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pending(self) -> int:
        return len(self._tasks)

    async def run(self) -> None:
        """Until cancelled; payments in flight go on."""
        while True:
            await self.going.wait()
            await asyncio.sleep(self._plan.pause_s(self._rate_per_s))
            if self.pending < MAX_IN_FLIGHT and self.going.is_set():
                self._begin(self._plan.next())

    async def drain(self, timeout_s: float) -> None:
        """Wait for what is in flight."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def abandon(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _begin(self, payment: Payment) -> None:
        self.attempted += 1
        task = asyncio.create_task(self._make(payment), name="payment")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, payment: Payment) -> None:
        payer = self._nodes[payment.payer]
        began_s = time.perf_counter()
        try:
            if payment.keysend:
                result = await payer.call(
                    "keysend",
                    node_id=self._node_ids[payment.payee],
                    amount_msat=payment.amount_msat,
                    timeout_s=PAYMENT_TIMEOUT_S,
                )
            else:
                bolt11 = await self._invoice(payment)
                began_s = time.perf_counter()
                result = await payer.call("pay", bolt11=bolt11, timeout_s=PAYMENT_TIMEOUT_S)
        except CallFailed as error:
            # of all nodes the hub alone is called through a socket, whose path says nothing to a person
            reason = "backend not reachable" if isinstance(error, Unreachable) else str(error)
            self._book(Outcome(payment, "unknown", reason=reason))
            return
        elapsed_ms = (time.perf_counter() - began_s) * 1_000
        self._book(_outcome(payment, result, elapsed_ms))

    async def _invoice(self, payment: Payment) -> str:
        arguments = {"amount_msat": payment.amount_msat, "description": "demo", "expiry_s": INVOICE_EXPIRY_S}
        answer = await self._nodes[payment.payee].call("invoice", **arguments)
        bolt11: str = answer["bolt11"]
        return bolt11

    def _book(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        payment = outcome.payment
        if outcome.status == "settled":
            self.latencies_ms.append(outcome.latency_ms)
            self.recent_ms.append(outcome.latency_ms)
            self._move(payment.payer, payment.payee, payment.amount_msat, outcome.fee_msat)
        else:
            self.reasons[outcome.reason] += 1
        if outcome.status == "unknown":
            self._unknown.add(payment.payer)
        else:
            self._known[payment.payer].add(outcome.payment_hash)
        self._told(outcome)

    async def learn_unknown(self) -> None:
        """Ask payers that were away (killed, restarted) what became of payments we had no answer for."""
        names = {node_id: name for name, node_id in self._node_ids.items()}
        for payer in self._unknown:
            for found in await self._nodes[payer].call("payments"):
                if found["payment_hash"] not in self._known[payer] and found["status"] == "settled":
                    amount_msat, fee_msat = found["amount_msat"], found["fee_msat"]
                    self._move(payer, names[found["destination"]], amount_msat, fee_msat)

    def _move(self, payer: str, payee: str, amount_msat: int, fee_msat: int) -> None:
        self.balance_msat[payer] -= amount_msat + fee_msat
        self.balance_msat[payee] += amount_msat
        self.balance_msat[HUB] += fee_msat  # the only node that forwards


def _outcome(payment: Payment, result: dict[str, Any], elapsed_ms: float) -> Outcome:
    latency_ms = float(
        result.get("latency_ms", elapsed_ms)
    )  # measured in the payer where it is a peer process
    reason = str(result.get("reason") or "")
    return Outcome(
        payment, result["status"], int(result["fee_msat"] or 0), latency_ms, reason, result["payment_hash"]
    )
