"""Payments as a workload: drawn from the seed, at a rate or by users, every outcome counted and booked."""

import asyncio
import math
import random
from collections import Counter
from typing import Any

from msgspec import Struct

from lnsim.api_client import CallFailed, Unreachable
from lnsim.run.context import Context
from lnsim.run.timing import ticks
from lnsim.scenario.workloads import HUB, Payments

INVOICE_EXPIRY_S = 3_600
EVENING_SHARE = 0.5  # of payments that go from the richer to the poorer: balances swing, and never run out
MULTIPART_SHARE = (1.1, 1.6)  # of the largest channel of the payer
MAX_SPENDABLE_SHARE = 0.7  # of all that the payer can spend: room for what else is in flight
RETRY_S = 0.5  # for a user whose node is away


class Payment(Struct, frozen=True):
    payer: str
    payee: str
    amount_msat: int
    kind: str  # keysend, invoice or multipart


class Plan:
    """An endless sequence of payments, the same for the same seed and nodes."""

    def __init__(self, spec: Payments, payers: list[str], payees: list[str], draw: random.Random) -> None:
        self._spec = spec
        self._payers = payers
        self._payees = payees
        self._draw = draw
        self._balance: Counter[str] = Counter()

    def next(self) -> Payment:
        payer, payee = self._pair()
        amount_msat = self._amount_msat()
        self._balance[payer] -= amount_msat
        self._balance[payee] += amount_msat
        return Payment(payer, payee, amount_msat, self._kind())

    def _pair(self) -> tuple[str, str]:
        draw = self._draw
        payer = draw.choice(self._payers)
        payee = draw.choice([name for name in self._payees if name != payer] or self._payees)
        could_swap = payer in self._payees and payee in self._payers
        if could_swap and draw.random() < EVENING_SHARE and self._richness(payer) < self._richness(payee):
            payer, payee = payee, payer
        return payer, payee

    def _amount_msat(self) -> int:
        low, high = self._spec.amount_msat
        if self._spec.amounts == "uniform":
            return self._draw.randint(low, high)
        return round(math.exp(self._draw.uniform(math.log(low), math.log(high))))

    def _kind(self) -> str:
        share = self._draw.random()
        if share < self._spec.keysend:
            return "keysend"
        return "multipart" if share < self._spec.keysend + self._spec.multipart else "invoice"

    def _richness(self, name: str) -> int:
        """What a node won so far; the hub, with all the channels, counts as one that broke even."""
        return 0 if name == HUB else self._balance[name]


class Workload:
    """Runs one `payments` entry of a scenario."""

    def __init__(self, context: Context, spec: Payments, number: int) -> None:
        self._context = context
        self._recorder = context.stage.recorder
        self._spec = spec
        payers, payees = context.names(spec.payers), context.names(spec.payees)
        self._plan = Plan(spec, payers, payees, context.draw(number, "who pays whom"))
        self._arrivals = context.draw(number, "when")
        self._in_flight = 0

    async def run(self) -> None:
        context, spec = self._context, self._spec
        await context.clock.until(spec.start_s)
        end_s = context.end_s(spec)
        if spec.users is not None:
            await self._users(spec.users, end_s)
            return
        assert spec.rate_per_s is not None
        async for _ in ticks(context.clock, spec.rate_per_s, spec.ramp_s, end_s, self._arrivals):
            if self._in_flight >= spec.max_in_flight:
                self._recorder.count("payments.shed")  # more would only queue, and latency would say nothing
                continue
            context.background.begin(self._make(self._plan.next()), "payment")

    async def _users(self, users: int, end_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(users):
                group.create_task(self._user(self._spec.ramp_s * number / users, end_s))

    async def _user(self, wait_s: float, end_s: float) -> None:
        clock = self._context.clock
        await asyncio.sleep(wait_s)
        while clock.now_s() < end_s:
            if await self._make(self._plan.next()) == "unknown":
                await asyncio.sleep(RETRY_S)

    async def _make(self, payment: Payment) -> str:
        self._in_flight += 1
        self._context.rates.in_flight += 1
        self._recorder.count("payments.attempted")
        try:
            amount_msat, result, latency_s = await self._pay(payment)
        except CallFailed as error:
            self._context.ledger.unknown(payment.payer)
            self._tell("unknown", "node not reachable" if isinstance(error, Unreachable) else str(error))
            return "unknown"
        finally:
            self._in_flight -= 1
            self._context.rates.in_flight -= 1
        self._book(payment, amount_msat, result, latency_s)
        return str(result["status"])

    async def _pay(self, payment: Payment) -> tuple[int, dict[str, Any], float]:
        """Amount, the node's answer, and how long it took."""
        loop, timeout_s = asyncio.get_running_loop(), self._spec.timeout_s
        payer = self._context.node(payment.payer)
        if payment.kind == "keysend":
            began_s = loop.time()
            node_id = self._context.ledger.node_ids[payment.payee]
            result = await payer.call(
                "keysend", node_id=node_id, amount_msat=payment.amount_msat, timeout_s=timeout_s
            )
            return payment.amount_msat, result, _latency_s(result, loop.time() - began_s)
        amount_msat = payment.amount_msat
        if payment.kind == "multipart":
            amount_msat = await self._large_msat(payment) or amount_msat
        made = await self._context.node(payment.payee).call(
            "invoice", amount_msat=amount_msat, description="lnsim", expiry_s=INVOICE_EXPIRY_S
        )
        began_s = loop.time()
        result = await payer.call("pay", bolt11=made["bolt11"], timeout_s=timeout_s)
        return amount_msat, result, _latency_s(result, loop.time() - began_s)

    async def _large_msat(self, payment: Payment) -> int:
        """More than any one channel of the payer holds, less than all of them together; 0 if there is no such amount."""
        channels = await self._context.node(payment.payer).call("channels")
        spendable = [channel["spendable_msat"] for channel in channels if channel["usable"]]
        largest, most = max(spendable, default=0), int(sum(spendable) * MAX_SPENDABLE_SHARE)
        low, high = (int(largest * share) for share in MULTIPART_SHARE)
        return min(high, most) if low <= most and largest else 0

    def _book(self, payment: Payment, amount_msat: int, result: dict[str, Any], latency_s: float) -> None:
        if result["status"] != "settled":
            self._context.ledger.failed(payment.payer, result["payment_hash"])
            self._tell("failed", str(result.get("reason") or "no reason given"))
            return
        fee_msat = int(result["fee_msat"] or 0)
        self._context.ledger.settled(
            payment.payer, payment.payee, amount_msat, fee_msat, result["payment_hash"]
        )
        recorder = self._recorder
        recorder.count("payments.settled")
        recorder.count("payments.sent_msat", amount_msat)
        recorder.observe("payments", latency_s)
        self._context.rates.settled(latency_s)
        if int(result.get("parts") or 1) > 1:
            recorder.count("payments.multipart")

    def _tell(self, status: str, reason: str) -> None:
        self._recorder.count(f"payments.{status}")
        self._recorder.count(f"failures.{reason}")


def _latency_s(result: dict[str, Any], elapsed_s: float) -> float:
    """As measured beside the payer's node where it is in another process."""
    latency_ms = result.get("latency_ms")
    return elapsed_s if latency_ms is None else float(latency_ms) / 1_000
