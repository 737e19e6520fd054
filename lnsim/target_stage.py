"""A scenario's stage around a node that was not started here: light peers need its address, all others a chain too."""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lnsim.api_client import CallFailed, Node
from lnsim.cluster import FLUSH_INTERVAL_S, all_of, wait_until
from lnsim.cluster_gauges import Gauges, answered
from lnsim.cluster_peer import peer_config
from lnsim.cluster_process import Supervisor
from lnsim.cluster_stage import MAX_COMPLAINTS, WORKERS
from lnsim.demo_place import make_place, remove_place
from lnsim.metrics.recorder import Recorder
from lnsim.scenario.model import PeersSpec, Scenario
from lnsim.stage import Chain, Group, LinkState
from lnsim.target import Target, greet
from lnsim.target_chain import TargetChain
from lnsim.worker.fleet import Fleet, Host, Processes
from node.backend.identity import CHAIN_HASHES
from node.errors import Refused

POLL_INTERVAL_S = 0.25  # of peers for blocks, where the chain announces none to them
CLOSE_TIMEOUT_S = 10.0
LAST_GREETING_S = 15.0  # a node that was loaded may need a while to take somebody in again


class TargetStage:
    """Implements `lnsim.stage.Stage`, without a hub to ask and without processes to disturb."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        recorder: Recorder,
        say: Callable[[str, str], None],
        *,
        target: Target,
        network: str,
        chain: TargetChain | None = None,
        host: Host | None = None,
    ) -> None:
        """`network`: as its greeting said. The peers live on `host`: processes of this machine where none is given."""
        self.scenario = scenario
        self.seed = seed
        self.recorder = recorder
        self.hub: Node | None = None
        self.hub_id = target.node_id
        self.hub_address = target.address
        self.frontends: Sequence[str] = ()
        self.groups: Mapping[str, Group] = {}
        self._chain = chain
        self._complaints: list[str] = []
        self.complaints: Sequence[str] = self._complaints
        self._tell = say
        self._target = target
        self._network = network
        self._place = make_place("run")
        self._supervisor = Supervisor(self._place, self._say)
        self._fleet = Fleet(scenario, seed, host or Processes(self._supervisor))
        self._gauges = Gauges(recorder, time.monotonic)

    @property
    def chain(self) -> Chain | None:
        return self._chain

    @property
    def onion(self) -> None:
        """None: that of a target is not ours."""
        return

    async def start(self) -> None:
        """Workers up and everybody in them; nobody connected yet. Raises ProcessFailed, CallFailed."""
        await all_of(self._endow(), self._fleet.hire())
        self.groups = await self._fleet.populate(self.hub_id, self._node_config, self._swarm_config)
        self._gauges.before({WORKERS: self._fleet.measured()})
        self._say("info", f"{self._fleet.workers} workers up, aimed at {self.hub_id[:16]} on {self._network}")

    async def stop(self) -> None:
        """After a last look at what the workers measured; what was opened is closed, and the target must still be there."""
        await self._fleet.read(self._gauges)
        try:
            await self._close_channels()
            await self._fleet.stop()
            await self._greet_again()
        finally:
            await self._supervisor.stop()
            if self._chain is not None:
                await answered(self._chain.leave())
            remove_place(self._place)

    def left_over(self) -> int:
        return self._supervisor.left_over()

    async def sample(self) -> None:
        self._gauges.processes({WORKERS: self._fleet.measured()})
        if self._chain is None:
            await self._fleet.read(self._gauges)
            return
        height, _ = await asyncio.gather(answered(self._chain.height()), self._fleet.read(self._gauges))
        if height is not None:
            self._gauges.chain(height)

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    # there is nothing of ours to disturb: `lnsim.target.check` refuses scenarios that do

    async def kill(self, what: str) -> None:
        raise _not_ours(what)

    async def restart(self, what: str) -> None:
        raise _not_ours(what)

    async def pause(self, what: str, for_s: float) -> None:
        raise _not_ours(what)

    def is_up(self, what: str) -> bool:
        return True

    async def set_link(self, frontend: str, state: LinkState, delay_s: float = 0.0) -> None:
        raise _not_ours(frontend)

    async def set_disk_delay(self, delay_s: float) -> None:
        raise _not_ours("the target's disk")

    # the peers

    async def _endow(self) -> None:
        if self._chain is not None:
            await self._chain.endow(self._fleet.purses())

    def _node_config(self, name: str) -> dict[str, Any]:
        assert self._chain is not None, "peers with channels were let through without a chain"
        endpoint = self._chain.endpoint
        chain = {"rpc_url": endpoint.url, "user": endpoint.user, "password": endpoint.password, "zmq": ""}
        config = peer_config(self._place, name, chain, FLUSH_INTERVAL_S)
        config["backend"]["bitcoind"] |= {
            "wallet": self._chain.wallet(name),
            "poll_interval_s": POLL_INTERVAL_S,
        }
        config["backend"]["channels"] = self.scenario.topology.cluster.channels
        return config

    def _swarm_config(self, spec: PeersSpec) -> dict[str, Any]:
        return {
            "hub_id": self.hub_id,
            "addresses": [self.hub_address],
            "chain_hash": CHAIN_HASHES[self._network].hex(),
            "ping_interval_s": spec.ping_interval_s,
            "listens": spec.listens,
        }

    # the end

    async def _close_channels(self) -> None:
        """Leave the target without channels whose other end is gone for good, as far as that goes."""
        nodes = [node for group in self.groups.values() for node in group.nodes]

        async def closed() -> bool:
            answers = await asyncio.gather(*(node.call("channels") for node in nodes))
            pairs = [(node, c) for node, own in zip(nodes, answers, strict=True) for c in own if c["usable"]]
            for node, channel in pairs:
                await node.call("close", channel_id=channel["channel_id"])
            return not pairs

        if nodes and self._chain is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await wait_until(closed, CLOSE_TIMEOUT_S, "the run's channels closed", POLL_INTERVAL_S)
                await self._chain.mine(1)
            except (CallFailed, TimeoutError) as failure:
                self._tell("info", f"channels are left at the target: {failure or 'it takes too long'}")

    async def _greet_again(self) -> None:
        """It was there at first, so it is to be there at the end."""
        why = ""

        async def is_there() -> bool:
            nonlocal why
            try:
                await greet(self._target, secrets.token_bytes)
            except Refused as error:
                why = str(error)
                return False
            return True

        try:
            await wait_until(is_there, LAST_GREETING_S, "greeted", 1.0)
        except CallFailed:
            self._say("bad", f"the target takes in nobody any more: {why}")

    def _say(self, kind: str, text: str) -> None:
        """What a worker or its supervisor found bad counts against the run, and so does a target that is gone."""
        if kind == "bad" and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(text)
        self._tell(kind, text)


def _not_ours(what: str) -> CallFailed:
    return CallFailed(f"{what}: is not of this run")
