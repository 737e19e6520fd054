"""Workloads of light peers: the swarm does the work where its peers live, this says what and when."""

import contextlib
from typing import Any, assert_never

import msgspec

from lnsim.api_client import CallFailed
from lnsim.run.context import Context
from lnsim.run.timing import repeat
from lnsim.scenario import workloads as wl

MIN_SYNC_S = 30.0  # that a sync may take, however late in the run it begins
RUDE = "rude"  # the group that rude connections come from; it needs no entry in the topology

Light = wl.ConnectionChurn | wl.ReconnectStorm | wl.SyncStorm | wl.GossipStorm | wl.Rude


class Crowd:
    """Runs one entry that is about connections and gossip."""

    def __init__(self, context: Context, spec: Light, number: int) -> None:
        self._context = context
        self._spec = spec
        self._draw = context.draw(number, "who")

    async def run(self) -> None:
        spec, clock = self._spec, self._context.clock
        if isinstance(spec, wl.ReconnectStorm | wl.SyncStorm):
            end_s = self._context.stage.scenario.duration_s
            await repeat(clock, spec.start_s, spec.every_s, end_s, self._act)
        else:
            await clock.until(spec.start_s)
            await self._act()

    async def _act(self) -> None:
        spec = self._spec
        match spec:
            case wl.ConnectionChurn():
                self._mark(f"{spec.group}: churn of {spec.rate_per_s:g}/s", self._lasts_s(spec))
                await self._call(
                    spec.group,
                    "churn",
                    per_s=spec.rate_per_s,
                    duration_s=self._lasts_s(spec),
                    ramp_s=spec.ramp_s,
                )
            case wl.ReconnectStorm():
                self._mark(f"{spec.group}: {spec.share:.0%} cut off")
                await self._cut(spec)
            case wl.SyncStorm():
                self._mark(f"{spec.group}: all ask for the whole graph")
                left_s = self._context.stage.scenario.duration_s - self._context.clock.now_s()
                await self._call(spec.group, "sync", queries=spec.queries, timeout_s=max(left_s, MIN_SYNC_S))
            case wl.GossipStorm():
                self._mark(f"{spec.group}: {spec.rate_per_s:g} updates/s", self._lasts_s(spec))
                await self._call(
                    spec.group,
                    "storm",
                    per_s=spec.rate_per_s,
                    duration_s=self._lasts_s(spec),
                    ramp_s=spec.ramp_s,
                    duplicate=spec.duplicate,
                    invalid=spec.invalid,
                    graph=msgspec.to_builtins(self._context.stage.scenario.topology.graph),
                    seed=self._context.stage.seed,
                )
            case wl.Rude():
                self._mark(f"rude peers, {spec.rate_per_s:g}/s", self._lasts_s(spec))
                await self._call(
                    RUDE,
                    "rude",
                    per_s=spec.rate_per_s,
                    duration_s=self._lasts_s(spec),
                    ways=list(spec.ways),
                    max_open=spec.max_open,
                )
            case _:
                assert_never(spec)

    async def _cut(self, spec: wl.ReconnectStorm) -> None:
        group = self._context.stage.groups[spec.group]
        if group.swarm is not None:
            await self._call(spec.group, "drop", share=spec.share)
            return
        count = round(spec.share * len(group.nodes))
        for node in self._draw.sample(list(group.nodes), count):
            with contextlib.suppress(CallFailed):  # one that is not connected just now has nothing to be cut
                await node.call("disconnect", node_id=self._context.stage.hub_id)

    async def _call(self, group: str, name: str, **arguments: Any) -> None:
        await self._context.swarm(group).call(name, **arguments)

    def _lasts_s(self, spec: wl.Lasting) -> float:
        return self._context.end_s(spec) - self._context.clock.now_s()

    def _mark(self, text: str, for_s: float | None = None) -> None:
        now_s = self._context.clock.now_s()
        self._context.stage.recorder.mark("info", text, None if for_s is None else now_s + for_s)
