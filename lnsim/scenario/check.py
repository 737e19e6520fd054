"""What the types of a scenario can't say: names that must exist, values that must fit each other."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, assert_never

import msgspec

from lnsim.scenario import workloads as wl
from lnsim.scenario.expectation import parse
from lnsim.scenario.model import DIRECT, MAX_PEERS_WITH_CHANNELS, ONION, PeersSpec, Scenario
from node.errors import Refused
from node.runtime.config import BackendConfig, ChannelConfig
from tor.config import Check, Service

MODES = ("cluster", "world")
CHANNEL_TYPES = ("anchors", "static_remotekey")
AMOUNTS = ("log", "uniform")
LINK_FAULTS = ("cut", "clog", "delay")
OURS = frozenset(
    ("data_dir", "link", "api", "bitcoind", "network", "channels", "log")
)  # that the run itself sets
OURS_OF_TOR = frozenset(
    ("mode", "directory", "key_file", "port", "address_file", "keep", "export_circuit_id", "single_hop_mode")
)


def check(scenario: Scenario) -> None:
    """Raises Refused with the path of the first thing that does not fit."""
    for path, complaint in _complaints(scenario):
        raise Refused(f"{path}: {complaint}")


def _complaints(scenario: Scenario) -> Iterator[tuple[str, str]]:
    if not scenario.modes or not set(scenario.modes) <= set(MODES):
        yield "modes", f"a list of {' and '.join(MODES)}"
    yield from _topology(scenario)
    for number, workload in enumerate(scenario.workloads):
        for field, complaint in _workload(workload, scenario):
            yield f"workloads[{number}].{field}", complaint
    for number, line in enumerate(scenario.expect):
        try:
            parse(line)
        except Refused as error:
            yield f"expect[{number}]", str(error)


def _topology(scenario: Scenario) -> Iterator[tuple[str, str]]:
    topology = scenario.topology
    for name, spec in topology.peers.items():
        path = f"topology.peers.{name}"
        if not name.isidentifier() or name in (wl.HUB, wl.BACKEND, wl.ANY_FRONTEND, *frontends(scenario)):
            yield path, "a name of letters, digits and _ that is no process of the cluster"
        if spec.channels is not None and spec.channels.type not in CHANNEL_TYPES:
            yield f"{path}.channels.type", f"one of {', '.join(CHANNEL_TYPES)}"
        if spec.through not in (DIRECT, ONION):
            yield f"{path}.through", f"one of {DIRECT}, {ONION}"
        if spec.through == ONION and topology.cluster.tor is None:
            yield f"{path}.through", "there is no onion service; topology.cluster.tor: {} makes one"
        if spec.channels is not None and spec.count > MAX_PEERS_WITH_CHANNELS:
            yield (
                f"{path}.count",
                f"at most {MAX_PEERS_WITH_CHANNELS} for peers with channels: each is a whole node",
            )
    if topology.graph is not None and bool(topology.graph.file) == bool(topology.graph.channels):
        yield "topology.graph", "either channels (to generate) or file"
    cluster = topology.cluster
    yield from _settings("topology.cluster.channels", cluster.channels, ChannelConfig)
    yield from _settings("topology.cluster.backend", cluster.backend, BackendConfig, OURS)
    if cluster.tor is not None:
        if scenario.modes != ("cluster",):
            yield "modes", "[cluster] where topology.cluster.tor is set: there is no tor in the world"
        yield from _settings("topology.cluster.tor.service", cluster.tor.service, Service, OURS_OF_TOR)
        yield from _settings("topology.cluster.tor.check", cluster.tor.check, Check)


def _settings(
    path: str, settings: dict[str, Any], kind: type[Any], ours: AbstractSet[str] = frozenset()
) -> Iterator[tuple[str, str]]:
    for key in sorted(ours & set(settings)):
        yield f"{path}.{key}", "is set by the run itself"
    try:
        msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        yield f"{path}{where.rstrip('`').removeprefix('$')}", message


def _workload(workload: wl.Workload, scenario: Scenario) -> Iterator[tuple[str, str]]:
    if workload.start_s >= scenario.duration_s:
        yield "start_s", f"before the end of the scenario at {scenario.duration_s:g} s"
    match workload:
        case wl.Payments():
            yield from _payments(workload, scenario)
        case wl.Hodl():
            yield from _ends(workload, scenario)
        case wl.ConnectionChurn() | wl.ReconnectStorm() | wl.SyncStorm():
            yield from _group(workload.group, scenario, light=None if _any_peer(workload) else True)
        case wl.GossipStorm():
            yield from _group(workload.group, scenario, light=True)
            if scenario.topology.graph is None:
                yield "group", "a storm needs topology.graph: its updates are of that graph's channels"
            if workload.duplicate + workload.invalid > 1:
                yield "invalid", "duplicate and invalid together are at most 1"
        case wl.ChannelChurn():
            yield from _group(workload.group, scenario, light=False)
        case wl.Rude():
            known = wl.Rude().ways
            if not workload.ways or not set(workload.ways) <= set(known):
                yield "ways", f"a list of {', '.join(known)}"
        case wl.Kill() | wl.Restart() | wl.Pause():
            yield from _process(workload.what, (wl.ANY_FRONTEND, wl.BACKEND, *frontends(scenario)))
        case wl.LinkFault():
            yield from _process(workload.what, (wl.ANY_FRONTEND, *frontends(scenario)))
            if workload.how not in LINK_FAULTS:
                yield "how", f"one of {', '.join(LINK_FAULTS)}"
        case wl.TorRestart() | wl.TorKill() | wl.TorControlCut() | wl.TorCircuits():
            if scenario.topology.cluster.tor is None:
                yield "run", "there is no tor; topology.cluster.tor: {} makes an onion service"
        case wl.RollingRestart() | wl.SlowDisk() | wl.Mine() | wl.Reorg() | wl.FeeSpike() | wl.BlockStall():
            pass
        case _:
            assert_never(workload)


def _any_peer(workload: wl.Workload) -> bool:
    """Connections of whole nodes can be cut as well."""
    return isinstance(workload, wl.ReconnectStorm)


def _payments(workload: wl.Payments, scenario: Scenario) -> Iterator[tuple[str, str]]:
    yield from _ends(workload, scenario)
    if (workload.rate_per_s is None) == (workload.users is None):
        yield "rate_per_s", "either rate_per_s or users"
    if workload.amounts not in AMOUNTS:
        yield "amounts", f"one of {', '.join(AMOUNTS)}"
    if workload.keysend + workload.multipart > 1:
        yield "multipart", "keysend and multipart together are at most 1: parts pay invoices"
    for name in workload.payers if workload.multipart else ():
        spec = scenario.topology.peers.get(name)
        if spec is not None and spec.channels is not None and spec.channels.each < 2:
            yield "multipart", f"payers with two channels or more; topology.peers.{name}.channels.each is 1"


def _ends(workload: wl.Payments | wl.Hodl, scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Who pays whom: two different nodes must be among them."""
    for field, names in (("payers", workload.payers), ("payees", workload.payees)):
        if not names:
            yield field, f"a list of groups with channels, or {wl.HUB}"
        for name in names:
            if name != wl.HUB:
                yield from ((field, complaint) for _, complaint in _group(name, scenario, light=False))
    if workload.amount_msat[0] > workload.amount_msat[1]:
        yield "amount_msat", "the smaller amount first"
    known = {*workload.payers, *workload.payees} & {wl.HUB, *scenario.topology.peers}
    if sum(1 if name == wl.HUB else scenario.topology.peers[name].count for name in known) < 2:
        yield "payees", "somebody other than the payer"


def _group(name: str, scenario: Scenario, *, light: bool | None) -> Iterator[tuple[str, str]]:
    peers: dict[str, PeersSpec] = scenario.topology.peers
    fitting = [each for each, spec in peers.items() if light is None or (spec.channels is None) == light]
    if name not in fitting:
        kind = {True: "without channels", False: "with channels", None: "of peers"}[light]
        yield "group", f'"{name}" is no group {kind}; there {_are(fitting)}'


def _process(what: str, known: Iterable[str]) -> Iterator[tuple[str, str]]:
    if what not in known:
        yield "what", f'"{what}" is no process of this scenario; one of {", ".join(known)}'


def _are(names: list[str]) -> str:
    return f"are {', '.join(names)}" if names else "is none"


def frontends(scenario: Scenario) -> tuple[str, ...]:
    """Names of the frontends: f1, f2 ..."""
    return tuple(f"f{number + 1}" for number in range(scenario.topology.cluster.frontends))


def needs(scenario: Scenario, kind: type[Any]) -> bool:
    """Whether a workload of this kind is in it."""
    return any(isinstance(workload, kind) for workload in scenario.workloads)
