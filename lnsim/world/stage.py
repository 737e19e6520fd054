"""A scenario's stage in one world: the chain, the backend, its frontends, and a worker that hosts the peers."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from lnsim import chain_control
from lnsim.api_client import Node
from lnsim.background_graph import deltas, plant
from lnsim.cluster import FLUSH_INTERVAL_S, HUB
from lnsim.cluster_gauges import Gauges, answered
from lnsim.metrics.recorder import Recorder
from lnsim.scenario.model import PeersSpec, Scenario
from lnsim.scenario.workloads import BACKEND, Rude
from lnsim.stage import Chain, Group, LinkState
from lnsim.worker.pool import Crew, node_names, populate
from lnsim.worker.worker import RUNTIME, WORKER, Worker
from lnsim.world.chain import WorldChain
from lnsim.world.hub import Hub
from lnsim.world.runtime import WorldRuntime
from lnsim.world.service import Service
from lnsim.world.world import World
from node.backend.backend import Backend
from node.backend.chain_client import ChainClient
from node.backend.chain_watcher import Hints
from node.backend.identity import CHAIN_HASHES
from node.frontend.frontend import Frontend
from node.runtime.config import (
    BackendConfig,
    BitcoindConfig,
    ChannelConfig,
    FrontendConfig,
    StandaloneConfig,
)
from node.runtime.release import release

ADDRESS = "127.0.0.1:9735"
LINK = "unix:/hub/link"
RECONNECT_S = 0.1
POLL_INTERVAL_S = 5.0  # of the chain, beside its notices
RUDE = "rude"  # the group that rude connections come from, where the topology has none
SPARE_COINS = 4  # of a wallet, beyond one for each channel of the topology
LEAST_COIN_SAT = 10_000_000
MINED = 102  # blocks until a coinbase can be spent, and what the first funding costs
COINBASE_SAT = 5_000_000_000


class WorldStage:
    """Implements `lnsim.stage.Stage`. Made, started and stopped on one `VirtualLoop`."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        recorder: Recorder,
        say: Callable[[str, str], None],
        trace_file: Path | None = None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.recorder = recorder
        self.world = World(seed, trace_file)
        self.hub_id = ""
        self.hub_address = ADDRESS
        self.frontends: Sequence[str] = [f"f{n}" for n in range(1, scenario.topology.cluster.frontends + 1)]
        self.groups: Mapping[str, Group] = {}
        self.complaints: Sequence[str] = self.world.complaints
        self._say = say
        self._specs = dict(scenario.topology.peers)
        if any(isinstance(workload, Rude) for workload in scenario.workloads):
            self._specs.setdefault(RUDE, PeersSpec(count=1))
        wallets = _wallets(self._specs)
        blocks = MINED + sum(coins * sat for coins, sat in wallets.values()) // COINBASE_SAT
        self._chain = WorldChain(self.world, blocks)
        self._chain.endow(wallets)
        self.chain: Chain = chain_control.embedded(self._chain.node)
        self._services = {BACKEND: Service(self.world, BACKEND, self._backend)}
        self._services |= {name: Service(self.world, name, self._frontend) for name in self.frontends}
        self._api = Hub(self._services[BACKEND], self.world.trace, self.world.random("api"))
        self.hub: Node | None = self._api
        self._gauges = Gauges(recorder, self.world.loop.time)
        self._disk_delay_s = 0.0
        self._peers: dict[str, WorldRuntime] = {}
        self._worker = Worker(self._peer, self._peer_chain)

    @property
    def onion(self) -> None:
        """None: there is no tor in the world."""
        return

    async def start(self) -> None:
        """All processes up; nothing connected yet. Raises CallFailed."""
        await self._services[BACKEND].start()
        for name in self.frontends:
            await self._services[name].start()
        crew = Crew(
            nodes=tuple((g, name) for g, spec in self._specs.items() for name in _nodes(g, spec)),
            light={group: spec.count for group, spec in self._specs.items() if spec.channels is None},
        )
        groups = await populate(
            [self._worker], [crew], self._specs, self.seed, self._node_config, self._swarm_config
        )
        # the protocol's attributes could be set, those of a frozen group can't, and nobody does
        self.groups = {name: cast(Group, group) for name, group in groups.items()}
        await self._worker.call(WORKER, "watch", {"hub_id": self.hub_id})
        self._say("info", f"backend and {len(self.frontends)} frontends up")

    async def stop(self) -> None:
        await self._read_worker()
        await self._worker.stop()
        for runtime in self._peers.values():
            runtime.process.kill()
        for name in (*self.frontends, BACKEND):
            await self._services[name].stop()
        self._chain.close()
        self.world.close()

    def left_over(self) -> int:
        return sum(service.runtime is not None for service in self._services.values())

    async def sample(self) -> None:
        """Whoever does not answer has no figures this time."""
        info = await answered(self._api.call("getinfo"))
        if info is not None:
            self._gauges.backend(info, self.frontends)
        self._gauges.chain(self._chain.node.chain.height)
        await self._read_worker()

    async def _read_worker(self) -> None:
        self._gauges.workers({RUNTIME: await self._worker.call(WORKER, "stats", {})})

    def random(self, name: str) -> random.Random:
        return self.world.random(name)

    # faults

    async def kill(self, what: str) -> None:
        await self._services[what].kill()

    async def restart(self, what: str) -> None:
        """Returns when it is back. Raises CallFailed."""
        await self._services[what].restart()

    async def pause(self, what: str, for_s: float) -> None:
        await self._services[what].pause(for_s)

    def is_up(self, what: str) -> bool:
        return self._services[what].up.is_set()

    async def set_link(self, frontend: str, state: LinkState, delay_s: float = 0.0) -> None:
        network = self.world.network
        network.mend(frontend, BACKEND)
        match state:
            case LinkState.CUT:
                network.cut(frontend, BACKEND)
            case LinkState.CLOGGED:
                network.clog(frontend, BACKEND)
            case LinkState.DELAYED:
                network.delay(frontend, BACKEND, delay_s)
            case LinkState.OPEN:
                pass

    async def set_disk_delay(self, delay_s: float) -> None:
        self._disk_delay_s = delay_s
        runtime = self._services[BACKEND].runtime
        if runtime is not None:
            runtime.disk_delay_s = delay_s

    # the processes

    def _backend(self, runtime: WorldRuntime) -> Backend:
        topology = self.scenario.topology
        runtime.disk_delay_s = self._disk_delay_s
        own = {
            **msgspec.to_builtins(self._config(HUB)),
            "link": LINK,
            "announce_addresses": [ADDRESS],
            "assume_channels_valid": topology.graph is not None,
        }
        config = msgspec.convert(own | topology.cluster.backend, BackendConfig)
        store = self.world.store(runtime.process, config.directory / "lnnode.sqlite")
        if topology.graph is not None and runtime.process.life == 1:
            plant(store, deltas(topology.graph, self.seed, self.world.now()))
        client, hints = self._chain.client(HUB, runtime)
        backend = Backend(runtime, config, client, store, release(), hints)
        self._api.backend = backend
        self.hub_id = backend.node_id.hex()
        return backend

    def _frontend(self, runtime: WorldRuntime) -> "_Listening":
        name = runtime.process.name
        config = FrontendConfig(
            id=name,
            listen=ADDRESS,
            backend=LINK,
            max_connections=self.scenario.topology.cluster.max_connections,
            reconnect_s=RECONNECT_S,
        )
        return _Listening(Frontend(runtime, config, name, release()))

    def _config(self, name: str) -> BackendConfig:
        return BackendConfig(
            data_dir=str(self.world.directory / name),
            alias=name,
            link=f"unix:/{name}/link",
            flush_interval_s=FLUSH_INTERVAL_S,
            bitcoind=BitcoindConfig(wallet=name, poll_interval_s=POLL_INTERVAL_S),
            channels=msgspec.convert(self.scenario.topology.cluster.channels, ChannelConfig),
        )

    # the peers

    def _node_config(self, name: str) -> dict[str, Any]:
        config = StandaloneConfig(listen="127.0.0.1:0", backend=self._config(name))
        plain: dict[str, Any] = msgspec.to_builtins(config)
        return plain

    def _swarm_config(self, spec: PeersSpec) -> dict[str, Any]:
        return {
            "hub_id": self.hub_id,
            "addresses": [ADDRESS],
            "chain_hash": CHAIN_HASHES["regtest"].hex(),
            "ping_interval_s": spec.ping_interval_s,
            "listens": spec.listens,
        }

    def _peer(self, name: str) -> WorldRuntime:
        if name not in self._peers:
            self._peers[name] = self.world.process(name)
        return self._peers[name]

    def _peer_chain(self, name: str) -> tuple[ChainClient, Hints | None]:
        return self._chain.client(name, self._peer(name))


class _Listening:
    """A frontend is ready when its port is open."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend

    async def start(self) -> None:
        await self._frontend.start()
        await self._frontend.listening.wait()

    async def stop(self) -> None:
        await self._frontend.stop()


def _nodes(group: str, spec: PeersSpec) -> list[str]:
    return node_names(group, spec) if spec.channels is not None else []


def _wallets(specs: Mapping[str, PeersSpec]) -> dict[str, tuple[int, int]]:
    """By name: how many coins of how many sat; enough for what each will fund, and some to spare."""
    wallets = {HUB: (SPARE_COINS, LEAST_COIN_SAT)}
    for group, spec in specs.items():
        if spec.channels is not None:
            coins = spec.channels.each + SPARE_COINS
            sat = max(LEAST_COIN_SAT, 2 * spec.channels.capacity_sat)
            wallets |= dict.fromkeys(_nodes(group, spec), (coins, sat))
    return wallets
