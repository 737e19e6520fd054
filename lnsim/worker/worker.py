"""Many simulated peers in one place: whole nodes and swarms of light ones, commanded by name.

The same object lives in a process of its own (cluster mode), in the virtual world (world mode) or in an actor on
another machine: it asks its runtimes for the outside world and the running loop for the time, and nothing else.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from lnsim.api_client import CallFailed
from lnsim.metrics.recorder import Recorder
from lnsim.peer_load import Load, LoadPlan
from lnsim.swarm.swarm import Swarm, SwarmConfig
from node.backend.chain_client import ChainClient
from node.backend.chain_watcher import Hints
from node.backend.session import Session
from node.errors import Refused
from node.runtime.config import StandaloneConfig
from node.runtime.runtime import Runtime
from node.runtime.zmq_client import ZmqHints
from node.standalone import Standalone

WORKER = ""  # the target that is the worker itself
RUNTIME = "worker"  # the name under which the worker asks for a runtime of its own
WATCH_INTERVAL_S = 0.05  # how exactly a reconnection is timed
PAYING = frozenset({"pay", "keysend"})

Arguments = Mapping[str, Any]
RuntimeFactory = Callable[[str], Runtime]
ChainFactory = Callable[[str], tuple[ChainClient, Hints | None]]


class StartNode(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    config: StandaloneConfig


class StartSwarm(Struct, frozen=True, forbid_unknown_fields=True):
    group: str
    seed: str  # of this part of the group: no two parts draw the same
    config: SwarmConfig


class Worker:
    """`call` is all there is to it. Targets: the worker (""), a node's name, a group's name.

    The worker's own commands: `start_node {name, config}` -> {node_id, listen}; `start_swarm {group, seed, config}`;
    `watch {hub_id}`; `stats` -> {nodes, swarms: {group: its stats}, snapshot: what was measured so far}.
    A node takes the commands of its API, and `load`/`stop_load` (`lnsim.peer_load`); payments come back with
    `latency_ms`. A group takes the commands of `lnsim.swarm.swarm.Swarm`.
    """

    def __init__(self, runtime: RuntimeFactory, chain: ChainFactory | None = None) -> None:
        """Both by the name of the peer; without `chain`, a node asks the bitcoind of its configuration."""
        began_s = asyncio.get_running_loop().time()
        self._runtime = runtime
        self._chain = chain
        self._recorder = Recorder(lambda: asyncio.get_running_loop().time() - began_s)
        self._nodes: dict[str, Standalone] = {}
        self._loads: dict[str, Load] = {}
        self._swarms: dict[str, Swarm] = {}
        self._watch: asyncio.Task[None] | None = None

    async def call(self, target: str, name: str, arguments: Arguments) -> Any:
        """The command's answer, as plain data. Raises CallFailed with words for whatever is refused or fails."""
        try:
            return await self._call(target, name, arguments)
        except (Refused, msgspec.ValidationError, TypeError, TimeoutError, OSError) as error:
            who = f"{target}: " if target else ""
            raise CallFailed(f"{who}{name}: {error or type(error).__name__}") from error

    async def stop(self) -> None:
        """Everything in here ends in order."""
        if self._watch is not None:
            self._watch.cancel()
        for load in self._loads.values():
            load.stop()
        await asyncio.gather(*(swarm.stop() for swarm in self._swarms.values()))
        await asyncio.gather(*(node.stop() for node in self._nodes.values()))

    async def _call(self, target: str, name: str, arguments: Arguments) -> Any:
        if target == WORKER:
            return await self._own(name, arguments)
        if target in self._nodes:
            return await self._node_call(target, name, arguments)
        if target in self._swarms:
            return await self._swarms[target].call(name, dict(arguments))
        raise Refused("nobody of that name is here")

    async def _own(self, name: str, arguments: Arguments) -> Any:
        match name:
            case "start_node":
                return await self._start_node(msgspec.convert(arguments, StartNode))
            case "start_swarm":
                return self._start_swarm(msgspec.convert(arguments, StartSwarm))
            case "watch":
                return self._start_watch(bytes.fromhex(arguments["hub_id"]))
            case "stats":
                return await self._stats()
            case _:
                raise Refused("no such command")

    async def _start_node(self, start: StartNode) -> dict[str, str]:
        self._check_name(start.name)
        client, hints = self._chain(start.name) if self._chain else (None, _hints(start.config))
        node = Standalone(start.config, self._runtime(start.name), client, hints)
        self._nodes[start.name] = node
        await node.start()
        return {"node_id": node.node_id.hex(), "listen": node.listen_address}

    def _start_swarm(self, start: StartSwarm) -> None:
        self._check_name(start.group)
        runtime = self._runtime(start.group)
        runtime.random.seed(start.seed)
        self._swarms[start.group] = Swarm(runtime, start.group, start.config, self._recorder)

    def _check_name(self, name: str) -> None:
        if name == WORKER or name in self._nodes or name in self._swarms:
            raise Refused(f'"{name}" is taken')

    async def _node_call(self, target: str, name: str, arguments: Arguments) -> Any:
        commands, loop = self._nodes[target].commands, asyncio.get_running_loop()
        if name == "load":
            load = self._loads[target] = Load(commands, msgspec.convert(arguments, LoadPlan), loop.time)
            return msgspec.to_builtins(await load.run())
        if name == "stop_load":
            return self._loads[target].stop() if target in self._loads else None
        began_s = loop.time()
        command = None if name.startswith("_") else getattr(commands, name, None)
        if not inspect.iscoroutinefunction(command):
            raise Refused("no such command")
        result = await command(**arguments)
        if name in PAYING:
            result = {**result, "latency_ms": (loop.time() - began_s) * 1_000}
        return result

    def _start_watch(self, hub_id: bytes) -> None:
        if self._watch is None:
            self._watch = self._runtime(RUNTIME).spawn(self._watch_sessions(hub_id), "watch sessions")

    async def _watch_sessions(self, hub_id: bytes) -> None:
        """Time every node's way back to the hub: from the last look with a session to the first one with the next."""
        loop = asyncio.get_running_loop()
        held: dict[str, tuple[Session, float]] = {}
        while True:
            now_s = loop.time()
            for name, node in self._nodes.items():
                session = node.backend.switchboard.session_of(hub_id)
                if session is None:
                    continue
                before, seen_s = held.get(name, (session, now_s))
                if before is not session:
                    self._recorder.observe("reconnect", now_s - seen_s)
                held[name] = session, now_s
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _stats(self) -> dict[str, Any]:
        return {
            "nodes": len(self._nodes),
            "swarms": {group: await swarm.stats() for group, swarm in self._swarms.items()},
            "snapshot": self._recorder.snapshot().to_plain(),
        }


def _hints(config: StandaloneConfig) -> Hints | None:
    endpoint = config.backend.bitcoind.zmq
    return ZmqHints(endpoint) if endpoint else None
