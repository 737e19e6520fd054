"""Figures of real processes as series: what they use, what they did since the last look, how far the chain is."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from lnsim.api_client import CallFailed
from lnsim.cluster_process import Child, Usage
from lnsim.metrics.histogram import Histogram
from lnsim.metrics.recorder import Measured as InHistogram
from lnsim.metrics.recorder import Recorder, Snapshot

PATIENCE_S = 2.0  # for an answer: a process that stands still is not to hold up the others' figures
COUNTED = ("messages_in", "messages_out", "bytes_in", "bytes_out")
MIN_SESSIONS = 100  # with fewer, what a frontend needs for itself hides what it needs for each
WINDOWS = {"p50": 0.5, "p99": 0.99}
WATCHED = "gossip.propagation"  # the one histogram of the workers that is also told second by second

T = TypeVar("T")


class Measured(Protocol):
    """A process, here or elsewhere, as far as its figures go."""

    @property
    def pid(self) -> int | None:
        """None where it is not running."""
        ...

    def usage(self) -> Usage: ...


class Gauges:
    """Mutable; remembers the last look, for rates."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._usage: dict[str, tuple[float, Usage]] = {}
        self._counts: dict[str, tuple[float, float]] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._empty_mb: dict[str, float] = {}  # memory of each process before anybody connected
        self._most: dict[tuple[str, int], int] = {}  # sessions so far, of each life of a frontend

    def before(self, rows: Mapping[str, Sequence[Measured]]) -> None:
        """Everything is up, nobody is connected: what there is now is not for peers."""
        self._empty_mb = {name: sum(child.usage().rss_mb for child in rows[name]) for name in rows}

    def processes(self, rows: Mapping[str, Sequence[Measured]]) -> None:
        """CPU in cores and memory of each row: one process, or several together. Who is down has no figures."""
        for name, children in rows.items():
            usages = [child.usage() for child in children if child.pid is not None]
            if not usages:
                continue
            now_s = self._clock()
            usage = Usage(sum(each.cpu_s for each in usages), sum(each.rss_mb for each in usages))
            then_s, then = self._usage.get(name, (now_s, usage))
            self._usage[name] = now_s, usage
            if now_s > then_s:
                share = max(0.0, usage.cpu_s - then.cpu_s) / (now_s - then_s)
                self._recorder.sample(f"{name}.cpu_share", share)
            self._recorder.sample(f"{name}.rss_mb", usage.rss_mb)

    def backend(self, info: Mapping[str, Any], frontends: Sequence[str]) -> None:
        """From the answer to getinfo."""
        self._rate("backend.commits", info["store"]["commits"])
        linked = {status["id"]: status for status in info["frontends"]}
        for name in frontends:
            status = linked.get(name)
            self._recorder.sample(f"{name}.sessions", status["sessions"] if status else 0)
            if status is None:
                continue
            self._recorder.sample(f"{name}.link_delay_ms", status["delay_ms"])
            for counted in COUNTED:
                self._rate(f"{name}.{counted}", status[counted])

    def memory(self, frontends: Mapping[str, Child], info: Mapping[str, Any]) -> None:
        """What a session costs each frontend, by the most it has held: memory once had is rarely given back."""
        for status in info["frontends"]:
            name = status["id"]
            child = frontends.get(name)
            if child is None or child.pid is None:
                continue
            life = name, child.restarts
            most = self._most[life] = max(status["sessions"], self._most.get(life, 0))
            if most >= MIN_SESSIONS:
                grown_kib = (child.usage().rss_mb - self._empty_mb[name]) * 1e6 / 1024
                self._recorder.sample(f"{name}.kib_per_session", max(0.0, grown_kib) / most)

    def chain(self, height: int) -> None:
        self._recorder.sample("chain.height", height)

    def workers(self, stats: Mapping[str, Mapping[str, Any]]) -> None:
        """From the workers' answers to `stats`, by their names; what they measured since goes in with the rest."""
        connected: Counter[str] = Counter()
        ready: Counter[str] = Counter()
        news = Histogram()
        for name, answer in stats.items():
            for group, swarm in answer["swarms"].items():
                connected[group] += swarm["connected"]
                ready[group] += swarm["ready"]
            fresh = self._fresh(name, Snapshot.from_plain(answer["snapshot"]))
            self._recorder.merge(fresh)
            if WATCHED in fresh.histograms:
                news.merge(fresh.histograms[WATCHED].histogram)
        for group, count in connected.items():
            self._recorder.sample(f"swarm.{group}.connected", count)
            self._recorder.sample(f"swarm.{group}.ready", ready[group])
        if news.count:
            for key, share in WINDOWS.items():
                self._recorder.sample(f"{WATCHED}.{key}_s", news.percentile(share))

    def _fresh(self, worker: str, now: Snapshot) -> Snapshot:
        """What this worker measured since we last asked it."""
        then = self._snapshots.get(worker, Snapshot({}, {}))
        self._snapshots[worker] = now
        histograms = {}
        for name, measured in now.histograms.items():
            before = then.histograms.get(name, InHistogram(measured.unit, Histogram()))
            histograms[name] = InHistogram(measured.unit, measured.histogram.since(before.histogram))
        counters = {name: value - then.counters.get(name, 0) for name, value in now.counters.items()}
        return Snapshot(counters, histograms)

    def _rate(self, name: str, count: float) -> None:
        """Per second since the last look; a process that was started anew counts from zero."""
        now_s = self._clock()
        then_s, before = self._counts.get(name, (now_s, count))
        self._counts[name] = now_s, count
        if now_s > then_s:
            done = count - before if count >= before else count
            self._recorder.sample(f"{name}_per_s", done / (now_s - then_s))


async def answered(call: Awaitable[T]) -> T | None:
    """The answer, unless there is none, or none in time: processes are being killed."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await call
    except (CallFailed, TimeoutError):
        return None
