"""A scenario's stage in real processes: the chain, the backend, its frontends, and workers with the peers."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lnsim.api_client import CallFailed, Node
from lnsim.background_graph import deltas, plant
from lnsim.chain_control import over_rpc
from lnsim.cluster import FLUSH_INTERVAL_S, HUB, LOOPBACK, Hub, Purse, all_of
from lnsim.cluster_gauges import Gauges, Measured, answered
from lnsim.cluster_peer import peer_config
from lnsim.cluster_process import Child
from lnsim.demo_place import make_place, remove_place
from lnsim.json_lines import Remote
from lnsim.link_proxy import ARGV as LINKS_ARGV
from lnsim.metrics.recorder import Recorder
from lnsim.onion.needed import require_tor
from lnsim.scenario.model import DIRECT, ONION, PeersSpec, Scenario
from lnsim.scenario.workloads import BACKEND, LinkFault, SlowDisk
from lnsim.slow_backend import ARGV as SLOW_ARGV
from lnsim.slow_backend import write_delay
from lnsim.stage import Chain, Group, LinkState, Onion
from lnsim.worker.fleet import LEAST_COIN_SAT, SPARE_COINS, Fleet, Host, Processes
from lnsim.worker.pool import node_names
from node.backend.identity import CHAIN_HASHES
from node.backend.sqlite_store import DATABASE
from node.runtime.config import BackendConfig
from node.standalone import open_store

if TYPE_CHECKING:
    from lnsim.onion.site import OnionSite

MAX_COMPLAINTS = 100
CHAIN = "chain"
LINKS = "links"
WORKERS = "workers"  # all of them, in figures
REGTEST_HASH = CHAIN_HASHES["regtest"].hex()


class ClusterStage:
    """Implements `lnsim.stage.Stage`. `start`, use, `stop`; it lives in a directory that is gone afterwards."""

    chain: Chain  # from `start` on
    hub: Node | None

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        recorder: Recorder,
        say: Callable[[str, str], None],
        host: Host | None = None,
        listen: str = LOOPBACK,
    ) -> None:
        """The peers live on `host`: processes of this machine where none is given; they reach us at `listen`."""
        self.scenario = scenario
        self.seed = seed
        self.recorder = recorder
        self.hub_id = ""
        self.groups: Mapping[str, Group] = {}
        self._complaints: list[str] = []
        self.complaints: Sequence[str] = self._complaints
        self._tell = say
        self._place = make_place("run")
        topology = scenario.topology
        self._hub = Hub(self._place, topology.cluster.frontends, self._say, listen)
        self.hub = self._hub.api
        self.hub_address = self._hub.address
        self.frontends: Sequence[str] = self._hub.frontends
        self._fleet = Fleet(scenario, seed, host or Processes(self._hub.supervisor))
        self._links = self._link_proxy() if self._has(LinkFault) else None
        self._gauges = Gauges(recorder, time.monotonic)
        self._onion = self._onion_site()
        by_onion = [(group, spec) for group, spec in topology.peers.items() if spec.through == ONION]
        self._by_onion = {name for group, spec in by_onion for name in node_names(group, spec)}

    @property
    def onion(self) -> Onion | None:
        return self._onion

    async def start(self) -> None:
        """All processes up; nothing connected yet. Raises ProcessFailed, CallFailed."""
        opening = [] if self._onion is None else [self._onion.open()]
        await all_of(self._start_hub(), self._fleet.hire(), *opening)
        self.hub_id = self._hub.node_id
        self.groups = await self._fleet.populate(self.hub_id, self._node_config, self._swarm_config)
        self._gauges.before(self._rows())
        if self._onion is not None:
            self._onion.knock(self.hub_id, REGTEST_HASH)
        self._say("info", f"backend, {len(self.frontends)} frontends and {self._fleet.workers} workers up")

    async def stop(self) -> None:
        """Everything down, after a last look at what the workers measured."""
        await self._fleet.read(self._gauges)
        try:
            await self._fleet.stop()
        finally:
            if self._onion is not None:
                await self._onion.close()
            await self._hub.stop()
            remove_place(self._place)

    def left_over(self) -> int:
        """How many processes are still there."""
        return self._hub.supervisor.left_over()

    async def sample(self) -> None:
        """Everything is asked at once, and whoever does not answer has no figures this time."""
        self._gauges.processes(self._rows())
        if self._onion is not None:
            self._onion.sample()
        info, height, _ = await asyncio.gather(
            answered(self._hub.api.call("getinfo")),
            answered(self.chain.height()),
            self._fleet.read(self._gauges),
        )
        if info is not None:
            self._gauges.backend(info, self.frontends)
            self._gauges.memory({name: self._child(name) for name in self.frontends}, info)
        if height is not None:
            self._gauges.chain(height)

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    # faults

    async def kill(self, what: str) -> None:
        child = self._child(what)
        self._target_down(what)
        child.kill()

    async def restart(self, what: str) -> None:
        """Raises ProcessFailed where it does not come back."""
        self._target_down(what)
        await self._hub.supervisor.restart(what)

    async def pause(self, what: str, for_s: float) -> None:
        self._target_down(what)
        await self._child(what).pause(for_s)

    def is_up(self, what: str) -> bool:
        return self._child(what).is_up

    async def set_link(self, frontend: str, state: LinkState, delay_s: float = 0.0) -> None:
        """Raises CallFailed where the scenario has no link faults: then there is nothing between the two."""
        if self._links is None:
            raise CallFailed("links can be changed where the scenario has a workload `run: link`")
        await self._links.call(frontend, "set", {"state": state.value, "delay_s": delay_s})

    async def set_disk_delay(self, delay_s: float) -> None:
        """Raises CallFailed where the scenario has no slow disk."""
        if not self._has(SlowDisk):
            raise CallFailed("the disk can be slow where the scenario has a workload `run: slow_disk`")
        write_delay(self._place / HUB, delay_s)

    # the processes

    async def _start_hub(self) -> None:
        hub, spec = self._hub, self.scenario.topology
        await hub.start_chain(self._purses())
        endpoint = hub.endpoint
        self.chain = over_rpc(endpoint["rpc_url"], endpoint["user"], endpoint["password"])
        if spec.graph is not None:
            await asyncio.to_thread(self._plant, time.time)
        if self._links is not None:
            await self._links.spawn(hub.supervisor)
        backend = {
            "channels": spec.cluster.channels,
            "assume_channels_valid": spec.graph is not None,
            **spec.cluster.backend,
        }
        argv = SLOW_ARGV if self._has(SlowDisk) else ()
        await all_of(
            hub.start_backend(backend, argv),
            *(hub.start_frontend(name, self._frontend_config(name)) for name in self.frontends),
        )

    def _plant(self, now: Callable[[], float]) -> None:
        """Everybody knows the graph from the start: dozens of nodes that learn it at once are another scenario."""
        graph = self.scenario.topology.graph
        assert graph is not None
        config = BackendConfig(data_dir=str(self._place / "graph"))
        store = open_store(config)
        try:
            planted = plant(store, deltas(graph, self.seed, now()))
        finally:
            store.close()
        for name in self._purses():
            (self._place / name).mkdir()
            shutil.copyfile(config.directory / DATABASE, self._place / name / DATABASE)
        self._say("info", f"graph of {planted.channels} channels and {planted.nodes} nodes")

    def _frontend_config(self, name: str) -> dict[str, Any]:
        config: dict[str, Any] = {"max_connections": self.scenario.topology.cluster.max_connections}
        if self._links is not None:
            config["backend"] = self._link_address(name)
        if self._onion is not None:
            config |= self._onion.frontend_config(name)
        return config

    def _link_proxy(self) -> Remote:
        addresses = [f"{name}={self._link_address(name)}" for name in self.frontends]
        return Remote(LINKS, [*LINKS_ARGV, self._hub.link, *addresses])

    def _link_address(self, name: str) -> str:
        return f"unix:{self._place / name}.link"

    # the peers

    def _purses(self) -> dict[str, Purse]:
        return {HUB: Purse(SPARE_COINS, LEAST_COIN_SAT), **self._fleet.purses()}

    def _node_config(self, name: str) -> dict[str, Any]:
        config = peer_config(self._place, name, self._hub.endpoint, FLUSH_INTERVAL_S)
        topology = self.scenario.topology
        config["backend"]["channels"] = topology.cluster.channels
        config["backend"]["assume_channels_valid"] = topology.graph is not None
        if self._onion is not None and name in self._by_onion:
            config["backend"]["tor"] = self._onion.peer_config()
        return config

    def _swarm_config(self, spec: PeersSpec) -> dict[str, Any]:
        return {
            "hub_id": self.hub_id,
            **self._way(spec),
            "chain_hash": REGTEST_HASH,
            "ping_interval_s": spec.ping_interval_s,
            "listens": spec.listens,
        }

    def _way(self, spec: PeersSpec) -> dict[str, Any]:
        if spec.through == DIRECT:
            return {"addresses": [self.hub_address]}
        assert self._onion is not None, (
            "the file's check let nobody through to an onion service that is not there"
        )
        return {"addresses": [self._onion.address], "socks": self._onion.socks}

    # the onion service

    def _onion_site(self) -> "OnionSite | None":
        """Raises Refused where the scenario has one and this machine has no tor."""
        settings = self.scenario.topology.cluster.tor
        if settings is None:
            return None
        require_tor("topology.cluster.tor")
        from lnsim.onion.site import OnionSite  # noqa: PLC0415 - what it imports is of an extra

        supervisor = self._hub.supervisor
        return OnionSite(settings, self._place, self.frontends, supervisor, self.recorder, self._say)

    def _target_down(self, what: str) -> None:
        if self._onion is not None and what != BACKEND:
            self._onion.target_down()

    # looking at them

    def _rows(self) -> dict[str, Sequence[Measured]]:
        children = self._hub.supervisor.children
        rows: dict[str, Sequence[Measured]] = {
            name: [children[name]] for name in (BACKEND, *self.frontends, CHAIN, LINKS) if name in children
        }
        of_tor = {} if self._onion is None else self._onion.rows()
        return {**rows, **of_tor, WORKERS: self._fleet.measured()}

    def _child(self, what: str) -> Child:
        """Raises CallFailed for a name that no process has."""
        if what not in (BACKEND, *self.frontends) or what not in self._hub.supervisor.children:
            raise CallFailed(f"no process {what}; there are {BACKEND} and {', '.join(self.frontends)}")
        return self._hub.supervisor.children[what]

    def _say(self, kind: str, text: str) -> None:
        """What a process or its supervisor found bad counts against the run."""
        if kind == "bad" and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(text)
        self._tell(kind, text)

    def _has(self, kind: type) -> bool:
        return any(isinstance(workload, kind) for workload in self.scenario.workloads)
