"""A scenario as values: what is built, what happens to it and when, and what must be true of the run."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from lnsim.scenario.workloads import Workload

MAX_FRONTENDS = 16  # of one run, on one machine
MAX_PEERS_WITH_CHANNELS = 500  # each is a whole node
MAX_LIGHT_PEERS = 50_000  # of a group; a port has as many numbers for connections
MAX_DURATION_S = 24 * 3_600.0

DIRECT, ONION = "direct", "onion"  # how peers get to the node

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the file: an unknown field is an error, not a setting without effect."""


class TorSpec(Section, frozen=True, kw_only=True):
    """An onion service in front of the frontends, in a private Tor network; `lntor` keeps it."""

    service: dict[str, Any] = {}  # tor.config.Service, by field
    check: dict[str, Any] = {}  # tor.config.Check, by field


class ClusterSpec(Section, frozen=True, kw_only=True):
    """The node under test: one backend and its frontends."""

    frontends: Annotated[int, Meta(ge=1, le=MAX_FRONTENDS)] = 2
    max_connections: Positive = 20_000  # of one frontend
    backend: dict[str, Any] = {}  # node.runtime.config.BackendConfig, by field
    channels: dict[str, int] = {}  # node.runtime.config.ChannelConfig, by field; simulated peers have it too
    tor: TorSpec | None = None


class ChannelsSpec(Section, frozen=True, kw_only=True):
    """The channels that each peer of a group has with the node under test."""

    each: Annotated[int, Meta(ge=1, le=20)] = 1
    capacity_sat: Annotated[int, Meta(ge=20_000)] = 1_000_000
    balance: Share = 0.5  # of the capacity that the node under test has at the start
    type: str = "anchors"  # or static_remotekey
    announce: bool = True


class PeersSpec(Section, frozen=True, kw_only=True):
    """A group of simulated peers: whole nodes where it has channels, light ones (BOLT 8, BOLT 1, gossip) where not."""

    count: Annotated[int, Meta(ge=1, le=MAX_LIGHT_PEERS)]
    channels: ChannelsSpec | None = None
    through: str = DIRECT  # or onion: to the onion service, each peer on circuits of its own
    ping_interval_s: Annotated[float, Meta(gt=0)] = 20.0  # of light peers
    listens: bool = False  # light peers: asks for gossip from now on (gossip_timestamp_filter)
    connect_per_s: Annotated[float, Meta(gt=0)] = 500.0  # light peers: how fast they come in at the start


class GraphSpec(Section, frozen=True, kw_only=True):
    """A graph around the node: generated with the shape of the real one, or the messages of a file."""

    channels: Count = 0
    nodes: Count = 0  # 0: as many as the real graph has for so many channels
    file: str = ""


class ChainSpec(Section, frozen=True, kw_only=True):
    block_interval_s: Annotated[float, Meta(gt=0)] | None = None  # None: only what workloads mine


class Topology(Section, frozen=True, kw_only=True):
    cluster: ClusterSpec = ClusterSpec()
    peers: dict[str, PeersSpec] = {}
    graph: GraphSpec | None = None
    chain: ChainSpec = ChainSpec()


class Scenario(Section, frozen=True, kw_only=True):
    """One file. `claim` is its first comment, `name` the file's; both are filled in where it is read."""

    duration_s: Annotated[float, Meta(gt=0, le=MAX_DURATION_S)]
    topology: Topology = Topology()
    workloads: tuple[Workload, ...] = ()
    expect: tuple[str, ...] = ()  # lnsim.scenario.expectation
    modes: tuple[str, ...] = ("cluster", "world")  # in which it makes sense
    seed: int | None = None
    name: str = ""
    claim: str = ""
