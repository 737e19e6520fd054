"""Faults as workloads: each acts on the stage at its time, and leaves a mark on the run's time axis."""

import asyncio
from typing import assert_never

from lnsim.cluster import wait_until
from lnsim.run.context import Context
from lnsim.run.timing import repeat
from lnsim.scenario import workloads as wl
from lnsim.stage import LinkState

Simple = wl.Kill | wl.Restart | wl.Pause | wl.LinkFault | wl.SlowDisk
LINK_STATES = {"cut": LinkState.CUT, "clog": LinkState.CLOGGED, "delay": LinkState.DELAYED}
BACK_TIMEOUT_S = 60.0  # for a process to come back before the next one goes


class Fault:
    """Runs one entry that disturbs a process, a link or the disk, once or again and again."""

    def __init__(self, context: Context, spec: Simple, number: int) -> None:
        self._context = context
        self._stage = context.stage
        self._spec = spec
        self._draw = context.draw(number, "what is hit")

    async def run(self) -> None:
        spec, end_s = self._spec, self._stage.scenario.duration_s
        await repeat(self._context.clock, spec.start_s, spec.every_s, end_s, self._act)

    async def _act(self) -> None:
        spec = self._spec
        match spec:
            case wl.Kill():
                what = self._which(spec.what)
                self._mark(f"kill {what}")
                await self._stage.kill(what)
            case wl.Restart():
                what = self._which(spec.what)
                self._mark(f"restart {what}")
                await self._stage.restart(what)
            case wl.Pause():
                what = self._which(spec.what)
                self._mark(f"pause {what}", spec.for_s)
                await self._stage.pause(what, spec.for_s)
            case wl.LinkFault():
                await self._link(spec)
            case wl.SlowDisk():
                self._mark(f"disk slower by {spec.delay_s * 1_000:g} ms", spec.for_s)
                await self._stage.set_disk_delay(spec.delay_s)
                await asyncio.sleep(spec.for_s)
                await self._stage.set_disk_delay(0.0)
            case _:
                assert_never(spec)

    async def _link(self, spec: wl.LinkFault) -> None:
        what = self._which(spec.what)
        self._mark(f"link of {what}: {spec.how}", spec.for_s)
        await self._stage.set_link(what, LINK_STATES[spec.how], spec.delay_s)
        await asyncio.sleep(spec.for_s)
        await self._stage.set_link(what, LinkState.OPEN)

    def _which(self, what: str) -> str:
        """`frontend` is any of them that is there."""
        if what != wl.ANY_FRONTEND:
            return what
        up = [name for name in self._stage.frontends if self._stage.is_up(name)]
        return self._draw.choice(up or list(self._stage.frontends))

    def _mark(self, text: str, for_s: float | None = None) -> None:
        now_s = self._context.clock.now_s()
        self._stage.recorder.mark("fault", text, None if for_s is None else now_s + for_s)


class Rolling:
    """One process after the other, each only when the last is back: how an upgrade goes."""

    def __init__(self, context: Context, spec: wl.RollingRestart) -> None:
        self._context = context
        self._spec = spec

    async def run(self) -> None:
        stage = self._context.stage
        await self._context.clock.until(self._spec.start_s)
        for what in (*stage.frontends, *((wl.BACKEND,) if self._spec.backend else ())):
            stage.recorder.mark("fault", f"restart {what}")
            await stage.restart(what)
            await self._back(what)
            await asyncio.sleep(self._spec.pause_s)

    async def _back(self, what: str) -> None:
        async def is_up() -> bool:
            return self._context.stage.is_up(what)

        await wait_until(is_up, BACK_TIMEOUT_S, f"{what} back")
