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
HODL_SHARE = 0.4  # of networks with held payments
CHURN_SHARE = 0.3  # of networks whose channels come and go

Draw = random.Random


def scenario_of(seed: int) -> Scenario:
    """What is explored where no file is named: a small network of this seed in which everybody pays everybody."""
    draw = random.Random(f"network {seed}")
    channels = ChannelsSpec(
        each=draw.randint(1, 3),
        capacity_sat=draw.choice((100_000, 300_000, 2_000_000)),
        type=draw.choice(("anchors", "anchors", "static_remotekey")),
        announce=draw.random() < 0.8,
    )
    peers = {"payers": PeersSpec(count=draw.randint(2, 4), channels=channels)}
    slots = draw.choice((3, 10, 30))  # few run out
    workloads: list[wl.Workload] = [_payments(draw, channels)]
    if draw.random() < HODL_SHARE:
        in_flight = draw.randint(1, 2 * slots)
        hold_s = _seconds(draw, 0.1, 8.0)
        workloads.append(wl.Hodl(payers=("payers",), payees=("payers",), in_flight=in_flight, hold_s=hold_s))
    if draw.random() < CHURN_SHARE:
        workloads.append(wl.ChannelChurn(group="payers", rate_per_s=0.3, open_for_s=_seconds(draw, 0.5, 6.0)))
    cluster = ClusterSpec(frontends=draw.randint(1, 3), channels={"max_accepted_htlcs": slots})
    return Scenario(
        name="explore",
        claim="Whatever breaks, no msat is lost.",
        duration_s=DURATION_S,
        topology=Topology(cluster=cluster, peers=peers, chain=ChainSpec(block_interval_s=3.0)),
        workloads=tuple(workloads),
    )


def _payments(draw: Draw, channels: ChannelsSpec) -> wl.Payments:
    """Unannounced channels are found through the hints of invoices alone."""
    return wl.Payments(
        payers=("payers", "hub"),
        payees=("payers", "hub"),
        rate_per_s=_seconds(draw, 1.0, 8.0),
        amount_msat=(1_000, channels.capacity_sat * 100),
        keysend=0.5 if channels.announce else 0.0,
        multipart=0.1 if channels.each > 1 else 0.0,
        timeout_s=20.0,
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
