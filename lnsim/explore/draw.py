"""A scenario with faults drawn from a seed: what traffic it has, when what breaks, and how often."""

import random
from collections.abc import Callable

import msgspec

from lnsim.scenario import workloads as wl
from lnsim.scenario.check import frontends
from lnsim.scenario.model import ChainSpec, ChannelsSpec, ClusterSpec, PeersSpec, Scenario, Topology

MAX_FAULTS = 6  # more would only hide one another
FIRST_FAULT_S = 1.0
SLOW_SHARE = 0.4  # of seeds whose disk is slow throughout
CALM_S = 2.0  # without a new fault at the end
DURATION_S = 20.0

Draw = random.Random


def base() -> Scenario:
    """What is explored where no file is named: a small network in which everybody pays everybody."""
    payments = wl.Payments(
        payers=("payers", "hub"),
        payees=("payers", "hub"),
        rate_per_s=3.0,
        amount_msat=(1_000, 30_000_000),
        multipart=0.1,
        timeout_s=20.0,
    )
    return Scenario(
        name="explore",
        claim="Whatever breaks, no msat is lost.",
        duration_s=DURATION_S,
        topology=Topology(
            cluster=ClusterSpec(frontends=2),
            peers={"payers": PeersSpec(count=3, channels=ChannelsSpec(each=2, capacity_sat=300_000))},
            chain=ChainSpec(block_interval_s=5.0),
        ),
        workloads=(payments,),
    )


def with_faults(scenario: Scenario, seed: int) -> Scenario:
    """The scenario with faults of this seed beside its own workloads."""
    draw = random.Random(f"faults {seed}")
    end_s = max(FIRST_FAULT_S, scenario.duration_s - CALM_S)
    faults: list[wl.Workload] = []
    for _ in range(draw.randint(1, MAX_FAULTS)):
        made = draw.choice(KINDS)(draw, scenario)
        faults.append(msgspec.structs.replace(made, start_s=round(draw.uniform(FIRST_FAULT_S, end_s), 2)))
    if draw.random() < SLOW_SHARE:  # what is between a decision and its commit is then long enough to be hit
        delay_s = _seconds(draw, 0.003, 0.3)
        faults.append(wl.SlowDisk(delay_s=delay_s, for_s=scenario.duration_s))
    faults.sort(key=lambda fault: fault.start_s)
    return msgspec.structs.replace(scenario, workloads=(*scenario.workloads, *faults), seed=seed)


def _kill(draw: Draw, scenario: Scenario) -> wl.Workload:
    return wl.Kill(what=_process(draw, scenario))


def _restart(draw: Draw, scenario: Scenario) -> wl.Workload:
    return wl.Restart(what=_process(draw, scenario))


def _pause(draw: Draw, scenario: Scenario) -> wl.Workload:
    return wl.Pause(what=_process(draw, scenario), for_s=_seconds(draw, 0.1, 15.0))


def _link(draw: Draw, scenario: Scenario) -> wl.Workload:
    what, how = draw.choice(frontends(scenario)), draw.choice(("cut", "clog", "delay"))
    return wl.LinkFault(
        what=what, how=how, for_s=_seconds(draw, 0.1, 15.0), delay_s=_seconds(draw, 0.001, 1.0)
    )


def _disk(draw: Draw, scenario: Scenario) -> wl.Workload:
    return wl.SlowDisk(delay_s=_seconds(draw, 0.001, 1.0), for_s=_seconds(draw, 0.5, 5.0))


def _cut_off(draw: Draw, scenario: Scenario) -> wl.Workload:
    groups = list(scenario.topology.peers)
    return wl.ReconnectStorm(group=draw.choice(groups), share=round(draw.uniform(0.2, 1.0), 2))


def _reorg(draw: Draw, scenario: Scenario) -> wl.Workload:
    return wl.Reorg(depth=draw.randint(1, 3))


def _fees(draw: Draw, scenario: Scenario) -> wl.Workload:
    return wl.FeeSpike(feerate_per_kw=draw.choice((1_000, 5_000, 15_000)), for_s=_seconds(draw, 1.0, 10.0))


KINDS: tuple[Callable[[Draw, Scenario], wl.Workload], ...] = (
    *(_kill,) * 3,  # the more dangerous ones more often
    *(_link,) * 3,
    *(_pause,) * 2,
    *(_cut_off,) * 2,
    _restart,
    _disk,
    _reorg,
    _fees,
)


def _process(draw: Draw, scenario: Scenario) -> str:
    return draw.choice((wl.BACKEND, *frontends(scenario)))


def _seconds(draw: Draw, low: float, high: float) -> float:
    """Short ones as often as long ones."""
    return float(round(low * (high / low) ** draw.random(), 3))
