"""One run of a scenario in a world: real seconds pass only while something is computed."""

import asyncio
import contextlib
import gc
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from lnsim.metrics.recorder import Recorder
from lnsim.report.result import RunResult
from lnsim.run.runner import Origin, Run
from lnsim.run.show import Show
from lnsim.run.timing import Clock
from lnsim.scenario.model import Scenario
from lnsim.world.loop import run
from lnsim.world.stage import WorldStage
from node.runtime import logs
from node.runtime.config import LogConfig

COLLECTIONS = (50_000, 20, 100)  # gc's thresholds: a sixth of the time is saved


def run_world(
    scenario: Scenario, seed: int, origin: Origin, show: Show, trace_file: Path | None = None
) -> RunResult:
    """The same in every detail for the same scenario and seed; `trace_file` gets a line for each thing that happened."""
    began_s = time.perf_counter()
    with logs.for_a_while(LogConfig(level="error", format="text")), _rare_collections():
        result = run(_run(scenario, seed, origin, show, trace_file))
    return replace(result, wall_s=time.perf_counter() - began_s)


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """A world makes few cycles and many long-lived values, which the collector would look at again and again."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


async def _run(
    scenario: Scenario, seed: int, origin: Origin, show: Show, trace_file: Path | None
) -> RunResult:
    clock = Clock()
    stage = WorldStage(scenario, seed, Recorder(clock.now_s), show.say, trace_file)
    told = Run(stage, clock, origin, show.say)
    showing = asyncio.create_task(show.run(told), name="show")
    try:
        result = await told.run()
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        stage.world.close()
    trace, loop = stage.world.trace, stage.world.loop
    show.say("info", f"trace {trace.digest}: {trace.lines} lines of {loop.time():.1f} s")
    return result
