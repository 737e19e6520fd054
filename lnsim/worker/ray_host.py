"""Workers on an existing Ray cluster: actors, dealt out to its nodes in turn. Needs the extra `ray`."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import msgspec
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lnsim.api_client import CallFailed
from lnsim.cluster_gauges import Measured
from lnsim.cluster_process import ProcessFailed, Usage
from lnsim.worker.ray_actor import RayWorker
from node.errors import Refused
from node.runtime.addresses import split_address

MAX_CALLS = 10_000  # of one worker, at once: each payment under way is one
START_TIMEOUT_S = 60.0  # a node that has started no actor yet starts a process, which loads its code
STOP_TIMEOUT_S = 10.0
USAGE_INTERVAL_S = 1.0
REACH_TIMEOUT_S = 5.0
AUTO = "auto"  # the cluster that this machine is a node of


class RayHandle:
    """Our end of one actor. Implements `lnsim.worker.fleet.Hired` and `lnsim.cluster_gauges.Measured`."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self.pid: int | None = None
        self._actor = actor
        self._usage = Usage()

    async def begin(self) -> None:
        """Raises ProcessFailed."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.pid = await self._actor.begin.remote()
        except (RayError, TimeoutError) as error:
            raise ProcessFailed(f"{self.name}: {_words(error)}") from error

    async def call(self, target: str, name: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CallFailed."""
        try:
            done, answer = await self._actor.call.remote(target, name, msgspec.json.encode(arguments))
        except RayError as error:
            self.pid = None
            raise CallFailed(f"{self.name}: {_words(error)}") from error
        if not done:
            raise CallFailed(answer)
        return msgspec.json.decode(answer)

    async def look(self) -> None:
        """What it used so far, for `usage`."""
        try:
            cpu_s, rss_mb = await self._actor.usage.remote()
        except RayError:
            self.pid = None
        else:
            self._usage = Usage(cpu_s, rss_mb)

    def usage(self) -> Usage:
        return self._usage

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._actor.stop.remote()
        except (RayError, TimeoutError):
            pass  # it is ended either way
        ray.kill(self._actor)


class RayHost:
    """Implements `lnsim.worker.fleet.Host`."""

    def __init__(self, address: str, say: Callable[[str, str], None]) -> None:
        self._address = address
        self._say = say
        self._nodes: list[str] = []
        self._handles: list[RayHandle] = []
        self._looking: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Raises CallFailed where there is no such cluster."""
        try:
            await self._reach()
            # not in a thread: Ray wants the main one; a second, in which nobody is connected yet
            ray.init(
                address=self._address, log_to_driver=False, logging_level="error", configure_logging=False
            )
        except (RayError, OSError, TimeoutError, RuntimeError, ValueError, Refused) as error:
            raise CallFailed(f"--ray {self._address}: {_words(error)}") from error
        alive = [node for node in ray.nodes() if node["Alive"]]
        self._nodes = sorted(node["NodeID"] for node in alive)
        return max(len(alive) + 1, int(sum(node["Resources"].get("CPU", 1) for node in alive)))

    async def _reach(self) -> None:
        """Ray itself would try for minutes."""
        if self._address != AUTO:
            _, host, port = split_address(self._address)
            async with asyncio.timeout(REACH_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()

    async def start(self, count: int) -> Sequence[RayHandle]:
        """Raises ProcessFailed."""
        actor = ray.remote(num_cpus=0, max_concurrency=MAX_CALLS)(RayWorker)
        for number, node in zip(range(1, count + 1), cycle(self._nodes), strict=False):
            there = actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            self._handles.append(RayHandle(f"worker{number}", there.remote()))
        await asyncio.gather(*(handle.begin() for handle in self._handles))
        used = self._nodes[:count]
        self._say("info", f"{count} workers on {len(used)} of {len(self._nodes)} nodes of the Ray cluster")
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking(), name="look at workers")
        return self._handles

    def measured(self) -> Sequence[Measured]:
        return self._handles

    async def stop(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*(handle.stop() for handle in self._handles))
        if ray.is_initialized():
            await asyncio.to_thread(ray.shutdown)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(USAGE_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        await asyncio.gather(*(handle.look() for handle in self._handles))


def _words(error: BaseException) -> str:
    """Ray's errors begin with what happened, and go on for a page."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
