"""Payments one after the other, as many in flight as asked for, each one's latency recorded."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

MAX_LATENCIES = 1_000_000  # of one run; keeps an endless one from growing for ever
MAX_REASONS = 20

Positive = Meta(gt=0)


class Payer(Protocol):
    """The two commands of a node that load needs."""

    async def keysend(self, *, node_id: str, amount_msat: int, timeout_s: float) -> dict[str, Any]: ...
    async def pay(self, *, bolt11: str, timeout_s: float) -> dict[str, Any]: ...


class LoadPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """Keysends to nodes drawn from `to`, or the invoices given; ends by count, by time or by `stop_load`."""

    to: tuple[str, ...] = ()
    bolt11: tuple[str, ...] = ()
    amount_msat: tuple[Annotated[int, Positive], Annotated[int, Positive]] = (1_000, 1_000)
    in_flight: Annotated[int, Positive] = 1
    count: Annotated[int, Positive] | None = None
    for_s: Annotated[float, Positive] | None = None
    timeout_s: Annotated[float, Positive] = 60.0
    seed: int = 0


class LoadResult(Struct, frozen=True):
    """What came of it. Latencies are of settled payments, in microseconds, so that runs can be merged exactly."""

    attempted: int
    settled: int
    failed: int
    sent_msat: int
    fee_msat: int
    duration_s: float
    latencies_us: list[int]
    reasons: dict[str, int]


class Load:
    def __init__(self, payer: Payer, plan: LoadPlan, clock: Callable[[], float]) -> None:
        self._payer = payer
        self._plan = plan
        self._clock = clock
        self._random = random.Random(plan.seed)
        self._invoices = list(reversed(plan.bolt11))
        self._attempted = self._settled = self._sent_msat = self._fee_msat = 0
        self._latencies_us: list[int] = []
        self._reasons: Counter[str] = Counter()
        self._stopped = False

    def stop(self) -> None:
        """Begin no further payment; `run` returns once those in flight are done."""
        self._stopped = True

    async def run(self) -> LoadResult:
        began_s = self._clock()
        timer = None
        if self._plan.for_s is not None:
            timer = asyncio.get_running_loop().call_later(self._plan.for_s, self.stop)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.in_flight):
                group.create_task(self._worker())
        if timer is not None:
            timer.cancel()
        return LoadResult(
            attempted=self._attempted,
            settled=self._settled,
            failed=self._attempted - self._settled,
            sent_msat=self._sent_msat,
            fee_msat=self._fee_msat,
            duration_s=self._clock() - began_s,
            latencies_us=self._latencies_us,
            reasons=dict(self._reasons.most_common(MAX_REASONS)),
        )

    async def _worker(self) -> None:
        while self._more():
            self._attempted += 1
            began_s = self._clock()
            amount_msat, result = await self._pay()
            if result["status"] != "settled":
                self._reasons[str(result.get("reason"))] += 1
                continue
            self._settled += 1
            self._sent_msat += amount_msat
            self._fee_msat += result["fee_msat"]
            if len(self._latencies_us) < MAX_LATENCIES:
                self._latencies_us.append(round((self._clock() - began_s) * 1e6))

    def _more(self) -> bool:
        if self._stopped or self._attempted == self._plan.count:
            return False
        return bool(self._invoices) or bool(self._plan.to)

    async def _pay(self) -> tuple[int, dict[str, Any]]:
        timeout_s = self._plan.timeout_s
        if self._invoices:
            result = await self._payer.pay(bolt11=self._invoices.pop(), timeout_s=timeout_s)
            return result.get("amount_msat", 0), result
        amount_msat = self._random.randint(*self._plan.amount_msat)
        node_id = self._random.choice(self._plan.to)
        return amount_msat, await self._payer.keysend(
            node_id=node_id, amount_msat=amount_msat, timeout_s=timeout_s
        )


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value below which `share` of all lie (nearest rank); 0 where there is none."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]
