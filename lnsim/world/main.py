"""One run of a scenario in a world: real seconds pass only while something is computed."""

import asyncio
import time
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


def run_world(
    scenario: Scenario, seed: int, origin: Origin, show: Show, trace_file: Path | None = None
) -> RunResult:
    """The same in every detail for the same scenario and seed; `trace_file` gets a line for each thing that happened."""
    logs.configure(LogConfig(level="error", format="text"))
    began_s = time.perf_counter()
    result = run(_run(scenario, seed, origin, show, trace_file))
    return replace(result, wall_s=time.perf_counter() - began_s)


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
    trace, loop = stage.world.trace, stage.world.loop
    show.say("info", f"trace {trace.digest}: {trace.lines} lines of {loop.time():.1f} s")
    return result
