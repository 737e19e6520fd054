"""What a workload may do to a run, wherever it runs: real processes (cluster mode) or one virtual world (world mode).

A workload sleeps with asyncio, reads the time from the running loop, draws from `random(name)`, and touches nothing
but its stage. The same workload code runs in both modes.
"""

import random
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from lnsim.api_client import Node
from lnsim.metrics.recorder import Recorder
from lnsim.scenario.model import PeersSpec, Scenario


class PeerNode(Node, Protocol):
    """A simulated peer that is a whole node. `call` takes the names of the node's API (`node.backend.commands`)."""

    name: str
    node_id: str
    address: str  # where it listens


class Swarm(Protocol):
    """The light peers of a group, spread over workers. `call` takes the names of `lnsim.swarm.swarm.Swarm`."""

    async def call(self, name: str, **arguments: Any) -> Any: ...


class Group(Protocol):
    """Peers of one entry of `topology.peers`: `nodes` where they have channels, `swarm` where they are light."""

    name: str
    spec: PeersSpec
    nodes: Sequence[PeerNode]
    swarm: Swarm | None


class LinkState(Enum):
    OPEN = "open"
    CUT = "cut"
    CLOGGED = "clog"
    DELAYED = "delay"


class Chain(Protocol):
    async def height(self) -> int: ...
    async def mine(self, blocks: int) -> int:
        """Returns the new height."""
        ...

    async def reorg(self, depth: int) -> int:
        """Take `depth` blocks back and mine one more than that; returns the new height."""
        ...

    async def set_feerate(self, feerate_per_kw: int | None) -> None:
        """What the chain estimates from now on; None: what it did at first."""
        ...

    async def wallet_msat(self, wallet: str) -> int:
        """All that the wallet has, confirmed or not."""
        ...

    async def fees_sat(self, from_height: int, to_height: int) -> int:
        """Fees of all transactions in these blocks (both included)."""
        ...


class Onion(Protocol):
    """The onion service in front of the frontends, as faults see it."""

    address: str  # ADDRESS.onion:PORT

    async def restart(self) -> None:
        """Its tor: stopped in order, and started again; returns once its descriptor is out anew."""
        ...

    async def kill(self, for_s: float) -> None:
        """Its tor: at once, and started again after so long; returns as `restart` does."""
        ...

    async def cut_control(self, for_s: float) -> None:
        """What lntor has to tor is closed, and refused for so long."""
        ...

    async def close_circuits(self) -> int:
        """All that the service's clients have; returns how many there were."""
        ...


class Stage(Protocol):
    """Everything of one run. Names of processes: backend, f1, f2 ..."""

    scenario: Scenario
    seed: int
    recorder: Recorder
    hub: Node | None  # None: a node that was not started here, whose API nobody can ask
    hub_id: str
    hub_address: str
    frontends: Sequence[str]
    groups: Mapping[str, Group]
    complaints: Sequence[
        str
    ]  # what must not happen in any run: a failed task, a process that ended by itself

    @property
    def chain(self) -> Chain | None:
        """None: there is none to be had, and nothing of the scenario needs one."""
        ...

    @property
    def onion(self) -> Onion | None:
        """None where topology.cluster.tor is not set."""
        ...

    async def start(self) -> None:
        """All processes up; nothing connected yet. Raises ProcessFailed."""
        ...

    async def stop(self) -> None: ...

    def left_over(self) -> int:
        """Processes that are still there after `stop`."""
        ...

    async def sample(self) -> None:
        """Read all gauges into the recorder's series; asked for once a second."""
        ...

    def random(self, name: str) -> random.Random:
        """A generator of its own for each name, from the run's seed."""
        ...

    async def kill(self, what: str) -> None:
        """At once, as SIGKILL; it is started again after a while."""
        ...

    async def restart(self, what: str) -> None:
        """Stopped in order, and started again; returns when it is back."""
        ...

    async def pause(self, what: str, for_s: float) -> None:
        """Stand still, keep everything, go on."""
        ...

    def is_up(self, what: str) -> bool: ...

    async def set_link(self, frontend: str, state: LinkState, delay_s: float = 0.0) -> None: ...

    async def set_disk_delay(self, delay_s: float) -> None:
        """Of each of the backend's commits; 0 for none."""
        ...


def chain_of(stage: Stage) -> Chain:
    """For what needs one: a scenario that has such a thing is not begun without."""
    chain = stage.chain
    assert chain is not None, "a scenario that needs a chain was let through without"
    return chain


def onion_of(stage: Stage) -> Onion:
    """For faults of tor: the file's check lets them through only where there is one."""
    onion = stage.onion
    assert onion is not None, "a fault of tor was let through without a tor"
    return onion
