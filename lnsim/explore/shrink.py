"""From a scenario that fails to the smallest one that still does."""

from collections.abc import Callable, Iterator

import msgspec

from lnsim.scenario import workloads as wl
from lnsim.scenario.model import Scenario, Topology

MAX_RUNS = 60  # of one shrinking: each is a whole run

Fails = Callable[[Scenario], bool]
replace = msgspec.structs.replace


def shrink(scenario: Scenario, fails: Fails) -> tuple[Scenario, int]:
    """The smallest found, and how many runs it took; each step is kept only if it still fails."""
    runs = 0
    found = True
    while found and runs < MAX_RUNS:
        found = False
        for smaller in _smaller(scenario):
            if runs == MAX_RUNS:
                break
            runs += 1
            if fails(smaller):
                scenario, found = smaller, True
                break
    return scenario, runs


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Every scenario that is one step smaller, the largest steps first."""
    workloads = scenario.workloads
    for size in _sizes(len(workloads)):
        for start in range(0, len(workloads), size):
            yield replace(scenario, workloads=workloads[:start] + workloads[start + size :])
    yield from _shorter(scenario)
    yield from _fewer(scenario)
    for number, workload in enumerate(workloads):
        for milder in _milder(workload):
            yield replace(scenario, workloads=(*workloads[:number], milder, *workloads[number + 1 :]))


def _sizes(count: int) -> Iterator[int]:
    size = count // 2
    while size > 1:
        yield size
        size //= 2
    if count:
        yield 1


def _shorter(scenario: Scenario) -> Iterator[Scenario]:
    """End soon after the last thing begins."""
    last_s = max((workload.start_s for workload in scenario.workloads), default=0.0)
    for duration_s in (last_s + 1.0, (last_s + scenario.duration_s) / 2):
        shorter_s = round(max(duration_s, 1.0), 2)
        if shorter_s < scenario.duration_s - 0.5:
            yield replace(scenario, duration_s=shorter_s)


def _fewer(scenario: Scenario) -> Iterator[Scenario]:
    """Fewer frontends, fewer peers, fewer channels; whoever is named by a workload stays."""
    topology = scenario.topology
    named = {getattr(workload, "what", "") for workload in scenario.workloads}
    count = topology.cluster.frontends
    if count > 1 and f"f{count}" not in named:
        cluster = replace(topology.cluster, frontends=count - 1)
        yield _with(scenario, replace(topology, cluster=cluster))
    for name, spec in topology.peers.items():
        if spec.count > 1:
            peers = {**topology.peers, name: replace(spec, count=spec.count - 1)}
            yield _with(scenario, replace(topology, peers=peers))
        if spec.channels is not None and spec.channels.each > 1:
            channels = replace(spec.channels, each=spec.channels.each - 1)
            yield _with(
                scenario, replace(topology, peers={**topology.peers, name: replace(spec, channels=channels)})
            )
    if topology.chain.block_interval_s is not None:
        yield _with(scenario, replace(topology, chain=replace(topology.chain, block_interval_s=None)))


def _milder(workload: wl.Workload) -> Iterator[wl.Workload]:
    if isinstance(workload, wl.Payments):
        if workload.rate_per_s is not None and workload.rate_per_s > 0.5:
            yield replace(workload, rate_per_s=workload.rate_per_s / 2)
        if workload.multipart:
            yield replace(workload, multipart=0.0)
    if isinstance(workload, wl.Fault) and workload.every_s is not None:
        yield replace(workload, every_s=None)
    if isinstance(workload, wl.Pause | wl.LinkFault | wl.SlowDisk) and workload.for_s > 0.5:
        yield replace(workload, for_s=round(workload.for_s / 2, 3))


def _with(scenario: Scenario, topology: Topology) -> Scenario:
    return replace(scenario, topology=topology)
