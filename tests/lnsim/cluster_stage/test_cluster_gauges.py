"""What is asked of processes becomes series; who was started anew counts from zero, and nothing counts twice."""

import asyncio

import pytest

from lnsim import cluster_gauges
from lnsim.api_client import CallFailed
from lnsim.cluster_gauges import Gauges, answered
from lnsim.cluster_process import Usage
from lnsim.metrics.recorder import Recorder


class Alive:
    """A process that has not ended."""

    pid, restarts, rss_mb = 1, 0, 60.0

    def usage(self) -> Usage:
        return Usage(0.0, self.rss_mb)


class Bench:
    def __init__(self):
        self.now_s = 0.0
        self.recorder = Recorder(self.now)
        self.gauges = Gauges(self.recorder, self.now)

    def now(self) -> float:
        return self.now_s

    def values(self, name: str) -> list[float]:
        return self.recorder.series()[name].values


@pytest.fixture
def bench():
    return Bench()


def info(commits: int, *frontends: dict) -> dict:
    return {"store": {"commits": commits}, "frontends": frontends}


def frontend(name: str, messages: int, sessions: int = 1) -> dict:
    counts = dict.fromkeys(("messages_in", "messages_out", "bytes_in", "bytes_out"), messages)
    return {"id": name, "sessions": sessions, "delay_ms": 1.5, **counts}


def test_counts_become_rates_by_the_time_that_passed(bench):
    for now_s, commits in ((0, 100), (1, 110), (3, 150)):
        bench.now_s = now_s
        bench.gauges.backend(info(commits, frontend("f1", commits)), ["f1"])
    assert bench.values("backend.commits_per_s") == [10, 20]
    assert bench.values("f1.messages_in_per_s") == [10, 20]
    assert bench.values("f1.link_delay_ms") == [1.5, 1.5, 1.5]


def test_a_process_started_anew_counts_from_zero(bench):
    for now_s, commits in enumerate((100, 110, 7)):
        bench.now_s = float(now_s)
        bench.gauges.backend(info(commits), [])
    assert bench.values("backend.commits_per_s") == [10, 7]


def test_a_frontend_without_link_has_no_sessions_and_no_rates(bench):
    bench.gauges.backend(info(0, frontend("f1", 0, sessions=3)), ["f1", "f2"])
    assert bench.values("f1.sessions") == [3]
    assert bench.values("f2.sessions") == [0]
    assert "f2.link_delay_ms" not in bench.recorder.series()


def test_what_workers_measure_goes_in_once_and_second_by_second(bench):
    theirs = Recorder(bench.now)

    def look(connected: int) -> None:
        crowd = {"connected": connected, "ready": connected - 1}
        answer = {"swarms": {"crowd": crowd}, "snapshot": theirs.snapshot().to_plain()}
        bench.gauges.workers({"worker1": answer, "worker2": {"swarms": {}, "snapshot": empty}})

    empty = Recorder(bench.now).snapshot().to_plain()
    theirs.count("pings", 3)
    theirs.observe("gossip.propagation", 0.1)
    look(5)
    theirs.count("pings", 4)
    theirs.observe("gossip.propagation", 0.4)
    look(6)
    look(6)
    metrics = bench.recorder.metrics()
    assert metrics["pings"] == 7
    assert metrics["gossip.propagation.count"] == 2
    assert bench.values("swarm.crowd.connected") == [5, 6, 6]
    assert bench.values("swarm.crowd.ready") == [4, 5, 5]
    assert bench.values("gossip.propagation.p50_s") == pytest.approx([0.1, 0.4], rel=0.03)


def test_a_session_costs_what_the_frontend_grew_by_for_the_most_it_held(bench):
    child = Alive()
    bench.gauges.before({"f1": [child]})
    child.rss_mb += 200 * 10 * 1024 / 1e6
    for sessions in (50, 200, 20):  # too few to tell; all; memory stays when they go
        bench.gauges.memory({"f1": child}, info(0, frontend("f1", 0, sessions)))
    child.restarts += 1
    bench.gauges.memory({"f1": child}, info(0, frontend("f1", 0, 20)))
    assert bench.values("f1.kib_per_session") == pytest.approx([10, 10])


async def test_no_answer_is_no_figure(monkeypatch):
    async def fails() -> int:
        raise CallFailed("gone")

    async def works() -> int:
        return 3

    monkeypatch.setattr(cluster_gauges, "PATIENCE_S", 0.01)
    assert await answered(works()) == 3
    assert await answered(fails()) is None
    assert await answered(asyncio.Event().wait()) is None
