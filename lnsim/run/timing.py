"""When a workload acts: its start, its end, its rate, its repetitions. Time is that of the running loop."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable

MIN_SHARE = 0.02  # of the full rate at the beginning of a ramp: a first event comes soon


class Clock:
    """Seconds since the scenario began."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()

    def restart(self) -> None:
        self._began_s = self._loop.time()

    def now_s(self) -> float:
        return self._loop.time() - self._began_s

    async def until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.now_s()))


async def ticks(
    clock: Clock, rate_per_s: float, ramp_s: float, end_s: float, draw: random.Random
) -> AsyncIterator[None]:
    """Events of a Poisson process, its rate growing from next to nothing over the ramp, until `end_s`."""
    began_s = due_s = clock.now_s()
    while True:
        share = min(1.0, (due_s - began_s) / ramp_s) if ramp_s else 1.0
        due_s += draw.expovariate(rate_per_s * max(share, MIN_SHARE))
        if due_s >= end_s:
            await clock.until(end_s)
            return
        await clock.until(due_s)  # after a stall the events that were due come at once
        yield


async def repeat(
    clock: Clock, start_s: float, every_s: float | None, end_s: float, act: Callable[[], Awaitable[None]]
) -> None:
    """Act at the start, and again each `every_s` (never two at once) until `end_s`."""
    turn = 0
    while True:
        at_s = start_s + turn * (every_s or 0.0)
        if at_s >= end_s:
            return
        await clock.until(at_s)
        await act()
        if every_s is None:
            return
        turn = max(turn + 1, int((clock.now_s() - start_s) / every_s))
