"""What every workload of a run is given."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any

from msgspec import Struct

from lnsim.api_client import Node
from lnsim.run.figures import Rates
from lnsim.run.ledger import Ledger
from lnsim.run.timing import Clock
from lnsim.scenario.workloads import HUB, Lasting
from lnsim.stage import PeerNode, Stage, Swarm


class Context(Struct, frozen=True, eq=False):
    stage: Stage
    ledger: Ledger
    clock: Clock
    rates: Rates
    background: "Tasks"  # what goes on beside a workload: payments in flight

    def end_s(self, workload: Lasting) -> float:
        """When a workload stops beginning new things."""
        end_s = self.stage.scenario.duration_s
        return end_s if workload.duration_s is None else min(end_s, workload.start_s + workload.duration_s)

    def draw(self, number: int, what: str) -> random.Random:
        """Chance of the workload that is `number` in the file; the same if others beside it are left out."""
        workloads = self.stage.scenario.workloads
        kind = type(workloads[number])
        nth = sum(type(earlier) is kind for earlier in workloads[:number])
        return self.stage.random(f"{kind.__name__} {nth} {what}")

    def names(self, groups: Sequence[str]) -> list[str]:
        """Names of the nodes of these groups; hub is a group of one."""
        return [
            name
            for group in groups
            for name in ([HUB] if group == HUB else [node.name for node in self.stage.groups[group].nodes])
        ]

    def node(self, name: str) -> Node:
        return self.ledger.nodes[name]

    def whole(self, group: str) -> Sequence[PeerNode]:
        return self.stage.groups[group].nodes

    def swarm(self, group: str) -> Swarm:
        swarm = self.stage.groups[group].swarm
        assert swarm is not None, f"{group} is no group of light peers: the file's check let it through"
        return swarm


class Tasks:
    """Things going on, all of which end before the books are closed."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[object], None] = {}  # in order: the virtual world must repeat itself
        self._failed: list[BaseException] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    async def drain(self, timeout_s: float) -> int:
        """Wait for all of them; how many were given up. A fault of ours in one of them is raised here."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        left = len(self._tasks)
        self.abandon()
        for error in self._failed:
            raise error
        return left

    def abandon(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed.append(error)
