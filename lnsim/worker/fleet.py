"""The workers of a run and everybody in them, wherever they are: in processes of this machine, or on others."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from lnsim.cluster import Purse, all_of
from lnsim.cluster_gauges import Gauges, Measured, answered
from lnsim.cluster_peer import WORKER_ARGV
from lnsim.cluster_process import Supervisor
from lnsim.json_lines import Remote
from lnsim.scenario.model import PeersSpec, Scenario
from lnsim.scenario.workloads import Rude
from lnsim.stage import Group
from lnsim.worker.handles import Commanded
from lnsim.worker.pool import NodeConfig, SwarmConfig, crews, node_names, populate

RUDE = "rude"  # the group that rude connections come from, where the topology has none
SPARE_COINS = 4  # of a wallet, beyond one for each channel of the topology
LEAST_COIN_SAT = 10_000_000


class Hired(Commanded, Protocol):
    name: str


class Host(Protocol):
    """What workers run on."""

    async def open(self) -> int:
        """Get at it; how many workers it has room for. Raises CallFailed."""
        ...

    async def start(self, count: int) -> Sequence[Hired]:
        """That many workers, ready. Raises ProcessFailed, CallFailed."""
        ...

    def measured(self) -> Sequence[Measured]:
        """What the workers use of it."""
        ...

    async def stop(self) -> None: ...


class Processes:
    """Implements `Host`: each worker is a process of this machine."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._workers: list[Remote] = []

    async def open(self) -> int:
        return (os.cpu_count() or 1) + 1

    async def start(self, count: int) -> Sequence[Hired]:
        self._workers = [Remote(f"worker{number}", WORKER_ARGV) for number in range(1, count + 1)]
        await all_of(*(worker.spawn(self._supervisor) for worker in self._workers))
        return self._workers

    def measured(self) -> Sequence[Measured]:
        return [self._supervisor.children[name] for name in self._started()]

    async def stop(self) -> None:
        await self._supervisor.stop(self._started())

    def _started(self) -> list[str]:
        return [worker.name for worker in self._workers if worker.name in self._supervisor.children]


class Fleet:
    """`hire`, `populate`, use the groups, `stop`. `peers` are those of the topology, and rude ones where needed."""

    def __init__(self, scenario: Scenario, seed: int, host: Host) -> None:
        self.peers: dict[str, PeersSpec] = dict(scenario.topology.peers)
        if any(isinstance(workload, Rude) for workload in scenario.workloads):
            self.peers.setdefault(RUDE, PeersSpec(count=1))
        self._seed = seed
        self._host = host
        self._crews = crews(self.peers, 1)
        self._workers: Sequence[Hired] = ()

    @property
    def workers(self) -> int:
        return len(self._workers)

    def purses(self) -> dict[str, Purse]:
        """Enough coins for what each peer will fund, and some to spare."""
        purses: dict[str, Purse] = {}
        for group, spec in self.peers.items():
            if spec.channels is not None:
                coin_sat = max(LEAST_COIN_SAT, 2 * spec.channels.capacity_sat)
                purse = Purse(spec.channels.each + SPARE_COINS, coin_sat)
                purses |= dict.fromkeys(node_names(group, spec), purse)
        return purses

    async def hire(self) -> None:
        """All workers up, nobody in them. Raises ProcessFailed, CallFailed."""
        self._crews = crews(self.peers, await self._host.open())
        self._workers = await self._host.start(len(self._crews))

    async def populate(
        self, hub_id: str, node_config: NodeConfig, swarm_config: SwarmConfig
    ) -> Mapping[str, Group]:
        """Everybody there, and watched. Raises CallFailed."""
        groups = await populate(self._workers, self._crews, self.peers, self._seed, node_config, swarm_config)
        await all_of(*(worker.call("", "watch", {"hub_id": hub_id}) for worker in self._workers))
        # the protocol's attributes could be set, those of a frozen group can't, and nobody does
        return {name: cast(Group, group) for name, group in groups.items()}

    def measured(self) -> Sequence[Measured]:
        return self._host.measured()

    async def read(self, gauges: Gauges) -> None:
        """What the workers measured so far, into the figures of the run."""
        answers = await asyncio.gather(*(answered(worker.call("", "stats", {})) for worker in self._workers))
        told: dict[str, Mapping[str, Any]] = {
            worker.name: answer for worker, answer in zip(self._workers, answers, strict=True) if answer
        }
        gauges.workers(told)

    async def stop(self) -> None:
        await self._host.stop()
