"""Rates: how many events are due, a few at a time."""

import asyncio
from collections.abc import AsyncIterator

TICK_S = 0.02


async def pace(per_s: float, duration_s: float, ramp_s: float = 0.0) -> AsyncIterator[int]:
    """Yield how many are due now, never 0; from nothing to the full rate in `ramp_s`, over after `duration_s`."""
    loop = asyncio.get_running_loop()
    began_s, done = loop.time(), 0
    while True:
        passed_s = min(loop.time() - began_s, duration_s)
        due = int(due_by(passed_s, per_s, ramp_s))
        if due > done:
            yield due - done
            done = due
        if passed_s >= duration_s:
            return
        await asyncio.sleep(min(TICK_S, duration_s - passed_s))


def due_by(passed_s: float, per_s: float, ramp_s: float) -> float:
    """How many events of a rate that grows for `ramp_s` belong to the time that has passed."""
    if passed_s < ramp_s:
        return per_s * passed_s * passed_s / (2 * ramp_s)
    return per_s * (passed_s - ramp_s / 2)
