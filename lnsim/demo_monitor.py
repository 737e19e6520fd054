"""Watches a running demo: asks the backend, measures processes, and keeps what the picture is drawn from."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from lnsim.api_client import CallFailed
from lnsim.cluster import Cluster
from lnsim.cluster_process import Usage
from lnsim.demo_options import TOR
from lnsim.demo_state import (
    HUB,
    FrontendState,
    Health,
    Note,
    PaymentsState,
    PeerState,
    ProcessState,
    Pulse,
    Scene,
)
from lnsim.demo_traffic import Outcome, Traffic
from lnsim.peer_load import percentile

if TYPE_CHECKING:
    from lnsim.demo_onion import DemoOnion

TICK_S = 0.5
QUICK_LOOKS = 5  # within a tick, while somebody is away: how long that takes is worth knowing
MAX_NOTES = 200
MAX_GUESTS = 3  # more would not fit the picture
MAX_HISTORY = 600  # ticks of the sparkline
PULSE_S = 1.6  # how long a payment is drawn, much longer than it takes
PULSES_PER_S = 7  # more would be a swarm, not a picture
HISTORY_WINDOW = 2  # ticks that a rate is averaged over


class Monitor:
    """`scene()` is the present moment; `run` keeps it present."""

    def __init__(self, cluster: Cluster, seed: int, onion: "DemoOnion | None" = None) -> None:
        self.traffic: Traffic | None = None
        self.phase = "starting"
        self.notes: deque[Note] = deque(maxlen=MAX_NOTES)
        self.frontends: dict[str, FrontendState] = {
            n: FrontendState(name=n, health=Health.STARTING) for n in cluster.frontends
        }
        self.store_commits = 0
        self.carried: Counter[str] = Counter()  # payments settled, by the frontends of those who took part
        self._cluster = cluster
        self._seed = seed
        self._onion = onion
        self._by_onion = {peer.name for peer in cluster.by_entrance}
        self._began_s = time.monotonic()
        self._peers: dict[str, PeerState] = {p.name: self._peer(p.name, None, {}) for p in cluster.peers}
        self._away: dict[str, float] = {}  # peers that lost their session, and when
        self._channels: dict[str, dict[str, Any]] = {}  # by node id of the peer
        self._failures: Counter[str] = Counter()  # since the last look, by reason
        self.guests: dict[str, str] = {}
        shown = ("backend", *cluster.frontends, "chain", _peers(cluster), *((TOR,) if onion else ()))
        self._processes = {n: ProcessState(name=n, health=Health.STARTING) for n in shown}
        self._pulses: deque[Pulse] = deque()
        self._last_pulse_s = 0.0
        self._usage: dict[str, tuple[float, Usage]] = {}
        self._earlier: dict[str, FrontendState] = {}  # counters of incarnations that are gone
        self._latest: dict[str, dict[str, Any]] = {}
        self._settled: deque[int] = deque([0], maxlen=MAX_HISTORY)
        self._height = 0
        self._commits_per_s = 0.0

    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    def say(self, kind: str, text: str) -> None:
        self.notes.append(Note(self.now_s(), kind, text))

    def paid(self, outcome: Outcome) -> None:
        """Count it for the frontends that carried it; a few of the payments are drawn."""
        now_s = self.now_s()
        failed = outcome.status != "settled"
        if not failed:
            ends = {
                self._peers[n].frontend for n in (outcome.payment.payer, outcome.payment.payee) if n != HUB
            }
            self.carried.update(name for name in ends if name)
        else:
            self._failures[outcome.reason.partition(" (")[0]] += 1
        if failed or now_s - self._last_pulse_s > 1 / PULSES_PER_S:
            self._last_pulse_s = now_s
            self._pulses.append(Pulse(outcome.payment.payer, outcome.payment.payee, now_s, not failed))

    def scene(self) -> Scene:
        now_s = self.now_s()
        while self._pulses and now_s - self._pulses[0].began_s > PULSE_S:
            self._pulses.popleft()
        traffic, cluster = self.traffic, self._cluster
        return Scene(
            seed=self._seed,
            now_s=now_s,
            phase=self.phase,
            paused=traffic is not None and not traffic.going.is_set(),
            height=self._height,
            commits_per_s=self._commits_per_s,
            frontends=tuple(self.frontends.values()),
            processes=tuple(self._processes.values()),
            peers=tuple(self._peers.values()),
            pulses=tuple(self._pulses),
            payments=self.payments(),
            notes=tuple(self.notes),
            peer_address=f"{cluster.node_id}@{cluster.address}" if cluster.node_id else "",
            chain_url=cluster.endpoint.get("rpc_url", ""),
            tor=None if self._onion is None else self._onion.state(),
        )

    def payments(self) -> PaymentsState:
        traffic = self.traffic
        if traffic is None:
            return PaymentsState()
        recent_ms = sorted(traffic.recent_ms)
        return PaymentsState(
            attempted=traffic.attempted,
            settled=traffic.counts["settled"],
            failed=traffic.counts["failed"] + traffic.counts["unknown"],
            pending=traffic.pending,
            per_s=self._rates(),
            p50_ms=percentile(recent_ms, 0.5),
            p99_ms=percentile(recent_ms, 0.99),
        )

    async def run(self) -> None:
        """Look again every tick, until cancelled."""
        while True:
            await self.look()
            for _ in range(QUICK_LOOKS):
                await asyncio.sleep(TICK_S / QUICK_LOOKS)
                if self._away:
                    await self._look_for_the_lost()

    def cut(self, frontend: str) -> None:
        """A frontend was killed just now: its peers are away from this moment on."""
        self.frontends[frontend] = msgspec.structs.replace(
            self.frontends[frontend], health=Health.DOWN, sessions=0
        )
        for name, peer in self._peers.items():
            if peer.frontend == frontend:
                self._away[name] = self.now_s()
                self._peers[name] = msgspec.structs.replace(peer, frontend=None, usable=False)

    async def _look_for_the_lost(self) -> None:
        with contextlib.suppress(CallFailed):
            self._look_at_peers(await self._held(), self._channels)

    async def _held(self) -> dict[str, str]:
        """The frontend of each peer with a session; what a killed frontend held until just now does not count."""
        children = self._cluster.supervisor.children
        peers = await self._cluster.api.call("peers")
        return {
            p["node_id"]: p["frontend"] for p in peers if p["connected"] and children[p["frontend"]].is_up
        }

    async def look(self) -> None:
        self._measure()
        self._tell_failures()
        if self.traffic is not None:
            self._settled.append(self.traffic.counts["settled"])
        if not self._cluster.node_id:
            return
        try:
            info = await self._cluster.api.call("getinfo")
            held = await self._held()
            self._channels = {c["node_id"]: c for c in await self._cluster.api.call("channels")}
        except CallFailed:
            return  # the backend is being restarted; processes and notes say so
        self._height = info["block_height"]
        commits = info["store"]["commits"]
        self._commits_per_s = max(0, commits - self.store_commits) / TICK_S
        self.store_commits = commits
        self._look_at_frontends(info["frontends"])
        self._look_at_peers(held, self._channels)

    def _tell_failures(self) -> None:
        """Those since the last look, equal ones in one line: when a frontend is killed there are many."""
        failures, self._failures = self._failures, Counter()
        for reason, count in failures.most_common():
            self.notes.append(Note(self.now_s(), "bad", reason, failed=count))

    def _look_at_frontends(self, reported: list[dict[str, Any]]) -> None:
        now = {status["id"]: status for status in reported}
        for name, old in self.frontends.items():
            status = now.get(name)
            if status is None:
                self._bury(name)
                self.frontends[name] = FrontendState(
                    name=name,
                    health=Health.STARTING if old.health is Health.STARTING else Health.DOWN,
                    messages_in=old.messages_in,
                    messages_out=old.messages_out,
                )
                continue
            before = self._latest.get(name)
            if before is not None and status["messages_in"] < before["messages_in"]:
                self._bury(name)  # it died and came back between two looks
            self._latest[name] = status
            past = self._earlier.get(name, FrontendState(name=name))
            received = past.messages_in + status["messages_in"]
            sent = past.messages_out + status["messages_out"]
            self.frontends[name] = FrontendState(
                name=name,
                sessions=status["sessions"],
                messages_in=received,
                messages_out=sent,
                in_per_s=_smooth(old.in_per_s, (received - old.messages_in) / TICK_S),
                out_per_s=_smooth(old.out_per_s, (sent - old.messages_out) / TICK_S),
            )

    def _bury(self, name: str) -> None:
        """Keep the counters of a frontend that is gone."""
        if status := self._latest.pop(name, None):
            past = self._earlier.get(name, FrontendState(name=name))
            self._earlier[name] = FrontendState(
                name=name,
                messages_in=past.messages_in + status["messages_in"],
                messages_out=past.messages_out + status["messages_out"],
            )

    def _look_at_peers(self, held: dict[str, str], channels: dict[str, dict[str, Any]]) -> None:
        for peer in self._cluster.peers:
            frontend = held.get(peer.node_id)
            old = self._peers[peer.name]
            self._peers[peer.name] = self._peer(peer.name, frontend, channels.get(peer.node_id, {}))
            if frontend is None and old.frontend is not None:
                self._away.setdefault(peer.name, self.now_s())
            elif frontend is not None and peer.name in self._away:
                gone_s = self.now_s() - self._away.pop(peer.name)
                self.say("good", f"{peer.name} back via {frontend}, {gone_s:.1f} s")
        self._look_at_guests(held, channels)

    def _look_at_guests(self, held: dict[str, str], channels: dict[str, dict[str, Any]]) -> None:
        """Peers that somebody else connected: they are drawn like ours."""
        own = {peer.node_id for peer in self._cluster.peers}
        for node_id, frontend in held.items():
            if node_id not in own and node_id not in self.guests and len(self.guests) < MAX_GUESTS:
                name = self.guests[node_id] = f"guest{len(self.guests) + 1}"
                self.say("good", f"{name} connected via {frontend}")
        for node_id, name in self.guests.items():
            self._peers[name] = self._peer(name, held.get(node_id), channels.get(node_id, {}))

    def _peer(self, name: str, frontend: str | None, channel: dict[str, Any]) -> PeerState:
        return PeerState(
            name=name,
            frontend=frontend,
            hub_msat=channel.get("local_msat", 0),
            peer_msat=channel.get("remote_msat", 0),
            usable=channel.get("usable", False),
            by_onion=name in self._by_onion,
        )

    def _measure(self) -> None:
        """One row a process, the simulated peers together in one."""
        rows = []
        peers = {peer.name for peer in self._cluster.peers}
        order = ["backend", *self._cluster.frontends, "chain", *peers]
        children = [
            self._cluster.supervisor.children[n] for n in order if n in self._cluster.supervisor.children
        ]
        now_s = self.now_s()
        for child in children:
            usage = child.usage()
            then_s, then = self._usage.get(child.name, (now_s - TICK_S, usage))
            share = (usage.cpu_s - then.cpu_s) / max(now_s - then_s, 0.05)
            self._usage[child.name] = (now_s, usage)
            name = _peers(self._cluster) if child.name in peers else child.name
            health = Health.UP if child.pid else Health.DOWN if child.ready else Health.STARTING
            rss_mb = usage.rss_mb if child.pid else 0.0
            rows.append(ProcessState(name=name, health=health, pid=child.pid, cpu_share=share, rss_mb=rss_mb))
        if self._onion is not None:
            rows.append(self._tor(self._onion, now_s))
        for name, group in groupby(rows, key=lambda row: row.name):
            self._processes[name] = _together(name, list(group), self._processes[name])

    def _tor(self, onion: "DemoOnion", now_s: float) -> ProcessState:
        """All processes of the Tor network as one."""
        usages = [process.usage() for process in onion.processes()]
        usage = Usage(sum(each.cpu_s for each in usages), sum(each.rss_mb for each in usages))
        then_s, then = self._usage.get(TOR, (now_s - TICK_S, usage))
        self._usage[TOR] = (now_s, usage)
        share = (usage.cpu_s - then.cpu_s) / max(now_s - then_s, 0.05)
        return ProcessState(name=TOR, health=onion.state().health, cpu_share=share, rss_mb=usage.rss_mb)

    def _rates(self) -> tuple[float, ...]:
        counts = list(self._settled)
        return tuple(
            (later - earlier) / (HISTORY_WINDOW * TICK_S)
            for earlier, later in zip(counts, counts[HISTORY_WINDOW:], strict=False)
        )


def _peers(cluster: Cluster) -> str:
    return f"{len(cluster.peers)} peers"


def _together(name: str, rows: list[ProcessState], old: ProcessState) -> ProcessState:
    share = sum(row.cpu_share for row in rows)
    return ProcessState(
        name=name,
        health=min((row.health for row in rows), key=list(Health).index),
        pid=rows[0].pid if len(rows) == 1 else None,
        cpu_share=_smooth(old.cpu_share, share),
        rss_mb=sum(row.rss_mb for row in rows),
    )


def _smooth(old: float, new: float) -> float:
    """A figure that can be read while it changes."""
    return 0.6 * old + 0.4 * max(new, 0.0)
