"""Every benchmark, with the figure that it is to reach."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from lnsim.bench import (
    forwards,
    gossip_verify,
    graph_dump,
    graph_load,
    handshakes,
    idle_peer,
    link,
    route,
    store,
    transport,
)
from lnsim.bench.plan import Plan

Figures = dict[str, Any]


class Goal(Struct, frozen=True):
    """A figure, by its path, that should not be below or above a value (on two cores)."""

    path: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


class Benchmark(Struct, frozen=True):
    name: str
    about: str  # what is measured, in a few words
    run: Callable[[Plan], Figures]
    goals: tuple[Goal, ...] = ()
    graph: bool = False  # whether it runs on a graph of the plan's size


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("handshakes", "BOLT 8, responder", handshakes.run, (Goal(("ratio",), at_least=0.7),)),
        Benchmark(
            "transport",
            "138-byte messages encrypted",
            transport.run,
            (Goal(("messages_per_s",), at_least=250_000),),
        ),
        Benchmark(
            "gossip_verify",
            "announcements checked by a frontend",
            gossip_verify.run,
            (Goal(("ratio",), at_least=0.85),),
        ),
        Benchmark(
            "graph_load",
            "a frontend takes up the graph",
            graph_load.run,
            (Goal(("s",), at_most=3.0), Goal(("rss_mb",), at_most=250.0)),
            graph=True,
        ),
        Benchmark(
            "graph_dump",
            "a frontend sends the graph to a peer",
            graph_dump.run,
            (Goal(("messages_per_s",), at_least=150_000),),
            graph=True,
        ),
        Benchmark("link", "200-byte messages between processes", link.run),
        Benchmark(
            "idle_peer",
            "memory of a frontend for each idle peer",
            idle_peer.run,
            (Goal(("kib",), at_most=20.0),),
        ),
        Benchmark("store", "one update a transaction, and a hundred", store.run),
        Benchmark("route", "routes found on the graph", route.run, graph=True),
        Benchmark(
            "forwards",
            "payments through the cluster, by number in flight",
            forwards.run,
            (Goal(("1", "p50_ms"), at_most=40.0), Goal(("100", "backend_cpu_ms"), at_most=1.5)),
        ),
        Benchmark(
            "tls",
            "a forward over TLS between frontends and backend",
            forwards.run_tls,
            (Goal(("ratio",), at_most=1.34),),
        ),
    )
}
