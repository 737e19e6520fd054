"""A process of the world under a supervisor: started, killed, started again, stopped in order."""

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from lnsim.api_client import CallFailed
from lnsim.world.process import Process
from lnsim.world.runtime import Moment, WorldRuntime
from lnsim.world.world import World

RESTART_PAUSE_S = 1.5  # after a kill, as the supervisor of real processes waits
BOOT_S = (0.2, 0.7)  # an interpreter loading the node's code
START_TIMEOUT_S = 60.0
MAX_MOMENT_S = 0.3  # that a kill waits for a commit
STOP_TIMEOUT_S = 10.0  # then it is killed


class Program(Protocol):
    """What runs in the process."""

    async def start(self) -> None:
        """Returns once it is ready."""
        ...

    async def stop(self) -> None: ...


class Service:
    """One name, and its lives one after the other."""

    def __init__(self, world: World, name: str, make: Callable[[WorldRuntime], Program]) -> None:
        self.name = name
        self.runtime: WorldRuntime | None = None
        self.up = asyncio.Event()
        self.ended: list[Callable[[], None]] = []  # told when a life is over
        self._world = world
        self._make = make
        self._program: Program | None = None
        self._wanted = False
        self._chance = world.random(f"{name} lives")

    async def start(self) -> None:
        """Returns once it is ready. Raises CallFailed."""
        self._wanted = True
        self._begin()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self.up.wait()
        except TimeoutError:
            raise CallFailed(f"{self.name} was not up within {START_TIMEOUT_S:g} s") from None

    async def stop(self) -> None:
        """In order where it can, else killed."""
        self._wanted = False
        if self.runtime is None:
            return
        process = self.runtime.process
        if self._program is not None:
            task = process.spawn(self._program.stop(), "stop")
            await asyncio.wait([task], timeout=STOP_TIMEOUT_S)
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                process.failure = error
        process.kill()

    async def restart(self) -> None:
        """Returns once it is back."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """At once, or (bounded) when it is about to commit, has just done so, or is writing to others."""
        runtime, moment = self.runtime, self._chance.choice((None, *Moment))
        if runtime is None:
            return
        if moment is not None:
            ended = asyncio.Event()
            runtime.process.detach.append(ended.set)
            runtime.doom(moment)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MAX_MOMENT_S):
                    await ended.wait()
        runtime.process.kill()

    async def pause(self, for_s: float) -> None:
        if self.runtime is None:
            return
        process = self.runtime.process
        process.pause()
        await asyncio.sleep(for_s)
        process.go_on()

    def _begin(self) -> None:
        if not self._wanted or self.runtime is not None:
            return
        self.runtime = self._world.process(self.name, self._over)
        self.runtime.process.background(self._live(self.runtime), "main")

    async def _live(self, runtime: WorldRuntime) -> None:
        await asyncio.sleep(self._chance.uniform(*BOOT_S))
        program = self._make(runtime)
        await program.start()
        self._program = program
        self.up.set()

    def _over(self, process: Process) -> None:
        self.runtime = self._program = None
        self.up.clear()
        for tell in list(self.ended):
            tell()
        if self._wanted:
            self._world.loop.call_later(RESTART_PAUSE_S, self._begin, context=Context())
