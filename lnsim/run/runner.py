"""One run from start to verdict, the same in every mode: start, build, disturb, settle, check, stop."""

import asyncio
import os
import platform
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any, assert_never

from msgspec import Struct

from lnsim.api_client import CallFailed, Node
from lnsim.cluster_process import ProcessFailed
from lnsim.report.result import Check, RunResult
from lnsim.run import books
from lnsim.run.blocks import ChainEvent, Miner
from lnsim.run.builder import Builder
from lnsim.run.channel_churn import Churn
from lnsim.run.context import Context, Tasks
from lnsim.run.faults import Fault, Rolling
from lnsim.run.figures import Rates, summarize
from lnsim.run.hodl import Holding
from lnsim.run.invariants import check
from lnsim.run.ledger import Ledger
from lnsim.run.light import Crowd
from lnsim.run.onion import OnionFault
from lnsim.run.payments import Workload as Paying
from lnsim.run.timing import Clock
from lnsim.scenario import expectation
from lnsim.scenario import workloads as wl
from lnsim.scenario.workloads import HUB
from lnsim.stage import Stage

SAMPLE_S = 1.0
DRAIN_TIMEOUT_S = 90.0  # for payments in flight: above any patience of a payer that is not held up
BURY_BLOCKS = 7  # so that what was opened or closed last is deep enough
PACKAGES = ("lnsim", "msgspec", "coincurve", "wallycore", "cryptography", "uvloop")

Say = Callable[[str, str], None]


class Origin(Struct, frozen=True):
    """Of a run: how it was asked for and when, for its report."""

    mode: str
    command: str
    started: str


class Run:
    """Mutable; `result` once it has run. `phase` is for whoever shows it."""

    def __init__(self, stage: Stage, clock: Clock, origin: Origin, say: Say) -> None:
        """`clock` is that of the stage's recorder, and starts again when the scenario does."""
        self.stage = stage
        self.phase = "starting"
        self._origin = origin
        self._say = say
        self._complaints: list[str] = []
        self._checks: list[Check] = []
        self._clock = clock

    @property
    def now_s(self) -> float:
        """Seconds of the scenario; 0 until it begins and once it is over."""
        return self._clock.now_s() if self.phase in ("running", "settling", "checking") else 0.0

    async def run(self) -> RunResult:
        """Never raises for what the run met: that is in the result."""
        began_s = asyncio.get_running_loop().time()
        try:
            await self.stage.start()
            self.phase = "building"
            await Builder(self.stage, self._say).build()
            await self._middle()
        except (CallFailed, ProcessFailed, TimeoutError) as failure:
            self._complaints.append(f"{self.phase}: {failure or type(failure).__name__}")
            self._say("bad", self._complaints[-1])
        finally:
            self.phase = "stopping"
            await self.stage.stop()
        self._complaints += self.stage.complaints
        left = self.stage.left_over()
        self._checks.append(Check("no process left behind", left == 0))
        if left:
            self._complaints.append(f"{left} processes left behind")
        self.phase = "done"
        return self._result(asyncio.get_running_loop().time() - began_s)

    async def _middle(self) -> None:
        stage, tasks = self.stage, Tasks()
        whole: dict[str, Any] = {n.name: n for group in stage.groups.values() for n in group.nodes}
        nodes: dict[str, Node] = whole if stage.hub is None else {HUB: stage.hub, **whole}
        node_ids = {HUB: stage.hub_id, **{name: node.node_id for name, node in whole.items()}}
        ledger = Ledger(nodes, node_ids)
        before = await books.read(nodes, stage.chain, ledger)
        self._clock.restart()
        rates = Rates(stage.recorder)
        context = Context(stage, ledger, self._clock, rates, tasks)
        self.phase = "running"
        given_up = await self._workloads(context)
        if stage.chain is not None and ledger.touched_the_chain:
            await stage.chain.mine(BURY_BLOCKS)
        after = await books.read(nodes, stage.chain, ledger)
        if learnt := await ledger.learn_unknown():
            stage.recorder.count("payments.settled_unseen", learnt)
        self.phase = "checking"
        self._checks, complaints = await check(stage, ledger, before, after, given_up)
        self._complaints += complaints

    async def _workloads(self, context: Context) -> int:
        """All of the scenario's, and what they began to its end; blocks and samples beside them. How many never ended."""
        scenario = self.stage.scenario
        interval_s = scenario.topology.chain.block_interval_s
        miner = None if interval_s is None else Miner(context, interval_s)
        beside = [asyncio.create_task(self._sample(context))]
        if miner is not None:
            beside.append(asyncio.create_task(miner.run()))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._clock.until(scenario.duration_s))
                for number, workload in enumerate(scenario.workloads):
                    group.create_task(_runner(context, workload, number, miner), name=f"workload {number}")
            self.phase = "settling"
            return await context.background.drain(DRAIN_TIMEOUT_S)
        except ExceptionGroup as failures:
            raise _first(failures) from failures
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _sample(self, context: Context) -> None:
        while True:
            await asyncio.sleep(SAMPLE_S)
            context.rates.sample()
            await self.stage.sample()

    def _result(self, wall_s: float) -> RunResult:
        scenario, recorder = self.stage.scenario, self.stage.recorder
        summarize(recorder, scenario.duration_s)
        metrics = recorder.metrics()
        expectations = []
        for line in scenario.expect:
            wanted = expectation.parse(line)
            expectations.append(Check(line, wanted.holds(metrics), metrics.get(wanted.metric)))
        return RunResult(
            name=scenario.name,
            claim=scenario.claim,
            mode=self._origin.mode,
            seed=self.stage.seed,
            command=self._origin.command,
            started=self._origin.started,
            duration_s=scenario.duration_s,
            wall_s=wall_s,
            versions=_versions(),
            machine=_machine(),
            metrics=metrics,
            series=recorder.series(),
            marks=recorder.marks,
            histograms=recorder.snapshot().histograms,
            expectations=expectations,
            invariants=self._checks,
            complaints=self._complaints,
        )


def _first(failures: BaseException) -> BaseException:
    """A workload's own failure, out of the groups that tasks wrap it in."""
    while isinstance(failures, BaseExceptionGroup):
        failures = failures.exceptions[0]
    return failures


def _runner(
    context: Context, workload: wl.Workload, number: int, miner: Miner | None
) -> Coroutine[Any, Any, None]:
    match workload:
        case wl.Payments():
            return Paying(context, workload, number).run()
        case wl.Hodl():
            return Holding(context, workload, number).run()
        case wl.ChannelChurn():
            return Churn(context, workload, number).run()
        case wl.ConnectionChurn() | wl.ReconnectStorm() | wl.SyncStorm() | wl.GossipStorm() | wl.Rude():
            return Crowd(context, workload, number).run()
        case wl.Kill() | wl.Restart() | wl.Pause() | wl.LinkFault() | wl.SlowDisk():
            return Fault(context, workload, number).run()
        case wl.TorRestart() | wl.TorKill() | wl.TorControlCut() | wl.TorCircuits():
            return OnionFault(context, workload).run()
        case wl.RollingRestart():
            return Rolling(context, workload).run()
        case wl.Mine() | wl.Reorg() | wl.FeeSpike() | wl.BlockStall():
            return ChainEvent(context, workload, miner).run()
        case _:
            assert_never(workload)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, str]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpus": str(os.cpu_count()),
        "processor": platform.machine(),
    }
