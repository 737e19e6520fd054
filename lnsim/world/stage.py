"""A scenario's stage in one world: the chain, the backend, its frontends, and a worker that hosts the peers."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from lnsim import chain_control
from lnsim.api_client import Node
from lnsim.background_graph import deltas, plant
from lnsim.cluster import FLUSH_INTERVAL_S, HUB
from lnsim.metrics.recorder import Recorder, Snapshot
from lnsim.scenario.model import PeersSpec, Scenario
from lnsim.scenario.workloads import BACKEND, Rude
from lnsim.stage import Chain, Group, LinkState
from lnsim.worker.handles import HostedGroup, HostedNode, Part, SwarmHandle
from lnsim.worker.worker import WORKER, Worker
from lnsim.world.chain import WorldChain
from lnsim.world.gauges import Gauges
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
        wallets = _wallets(scenario)
        blocks = MINED + sum(coins * sat for coins, sat in wallets.values()) // COINBASE_SAT
        self._chain = WorldChain(self.world, blocks)
        self._chain.endow(wallets)
        self.chain: Chain = chain_control.embedded(self._chain.node)
        self._services = {BACKEND: Service(self.world, BACKEND, self._backend)}
        self._services |= {name: Service(self.world, name, self._frontend) for name in self.frontends}
        self._api = Hub(self._services[BACKEND], self.world.trace, self.world.random("api"))
        self.hub: Node | None = self._api
        self._fronts: dict[str, Frontend] = {}
        self._gauges = Gauges(recorder)
        self._disk_delay_s = 0.0
        self._peers: dict[str, WorldRuntime] = {}
        self._worker = Worker(self._peer, self._peer_chain)

    async def start(self) -> None:
        """All processes up; nothing connected yet. Raises CallFailed."""
        await self._services[BACKEND].start()
        for name in self.frontends:
            await self._services[name].start()
        peers = dict(self.scenario.topology.peers)
        if any(isinstance(workload, Rude) for workload in self.scenario.workloads):
            peers.setdefault(RUDE, PeersSpec(count=1))
        # the protocol's attributes could be set, those of a frozen group can't, and nobody does
        self.groups = {group: cast(Group, await self._group(group, spec)) for group, spec in peers.items()}
        await self._worker.call(WORKER, "watch", {"hub_id": self.hub_id})
        self._say("info", f"backend and {len(self.frontends)} frontends up")

    async def stop(self) -> None:
        stats = await self._worker.call(WORKER, "stats", {})
        self.recorder.merge(Snapshot.from_plain(stats["snapshot"]))
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
        self._gauges.frontends(self._fronts, self.is_up)
        if self._api.backend is not None:
            self._gauges.backend(self._api.backend)
        self.recorder.sample("chain.height", self._chain.node.chain.height)
        for name, group in self.groups.items():
            if group.swarm is not None:
                stats = await group.swarm.call("stats")
                self.recorder.sample(f"swarm.{name}.connected", stats["connected"])

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
        frontend = self._fronts[name] = Frontend(runtime, config, name, release())
        return _Listening(frontend)

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

    async def _group(self, group: str, spec: PeersSpec) -> HostedGroup:
        if spec.channels is None:
            return await self._crowd(group, spec)
        nodes = []
        for name in _names(group, spec):
            config = StandaloneConfig(listen="127.0.0.1:0", backend=self._config(name))
            start = {"name": name, "config": msgspec.to_builtins(config)}
            begun = await self._worker.call(WORKER, "start_node", start)
            nodes.append(HostedNode(self._worker, name, begun["node_id"], begun["listen"]))
        return HostedGroup(group, spec, tuple(nodes))

    async def _crowd(self, group: str, spec: PeersSpec) -> HostedGroup:
        config = {
            "hub_id": self.hub_id,
            "addresses": [ADDRESS],
            "count": spec.count,
            "chain_hash": CHAIN_HASHES["regtest"].hex(),
            "ping_interval_s": spec.ping_interval_s,
            "listens": spec.listens,
        }
        start = {"group": group, "seed": f"{self.seed}/{group}", "config": config}
        await self._worker.call(WORKER, "start_swarm", start)
        return HostedGroup(group, spec, swarm=SwarmHandle(group, [Part(self._worker, spec.count)]))

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


def _names(group: str, spec: PeersSpec) -> list[str]:
    return [f"{group}{number}" for number in range(1, spec.count + 1)]


def _wallets(scenario: Scenario) -> dict[str, tuple[int, int]]:
    """By name: how many coins of how many sat; enough for what each will fund, and some to spare."""
    wallets = {HUB: (SPARE_COINS, LEAST_COIN_SAT)}
    for group, spec in scenario.topology.peers.items():
        if spec.channels is not None:
            coins = spec.channels.each + SPARE_COINS
            sat = max(LEAST_COIN_SAT, 2 * spec.channels.capacity_sat)
            wallets |= dict.fromkeys(_names(group, spec), (coins, sat))
    return wallets
