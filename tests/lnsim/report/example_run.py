"""A run as it might have been: a minute of payments over two frontends, one of them killed at 20 s."""

import math
from random import Random

from lnsim.metrics.recorder import Recorder
from lnsim.report.result import Check, RunResult

DURATION_S = 60
KILLED_S, BACK_S = 20.0, 22.5
PEERS = 40


def example_run(seed=4711, *, slower=1.0, **changes):
    draw, now_s = Random(seed), [0.0]
    recorder = Recorder(lambda: now_s[0])
    for second in range(1, DURATION_S + 1):
        now_s[0] = float(second)
        away = KILLED_S < second <= BACK_S + 1
        _payments(recorder, draw, second, away, slower)
        _frontends(recorder, draw, second, away, slower)
        _others(recorder, draw, second, away)
    for _ in range(PEERS // 2):
        recorder.observe("reconnect", draw.lognormvariate(math.log(0.9 * slower), 0.5))
    _marks(recorder, now_s)
    recorder.put(
        "payments.success_ratio",
        recorder.counter("payments.settled") / recorder.counter("payments.attempted"),
    )
    return result(recorder, seed, changes)


def _payments(recorder, draw, second, away, slower):
    rate = 200 * min(second / 8, 1) / slower
    settled = round(rate * (draw.uniform(0.3, 0.5) if away else draw.uniform(0.94, 1.05)))
    failed = draw.randint(4, 15) if away else draw.choice((0, 0, 0, 1))
    recorder.count("payments.attempted", settled + failed)
    recorder.count("payments.settled", settled)
    recorder.count("payments.failed", failed)
    middle_s = 0.11 * slower * (4 if away else 1 + 0.1 * math.sin(second / 3))
    for _ in range(settled):
        recorder.observe("payments", draw.lognormvariate(math.log(middle_s), 0.35))
    recorder.sample("payments.settled_per_s", settled)
    recorder.sample("payments.failed_per_s", failed)
    recorder.sample("payments.p50_s", middle_s * draw.uniform(0.95, 1.05))
    recorder.sample("payments.p99_s", middle_s * draw.uniform(2.1, 3.4))
    recorder.sample("payments.in_flight", round(rate * middle_s * draw.uniform(0.9, 1.3)))


def _frontends(recorder, draw, second, away, slower):
    half = PEERS // 2
    f1 = 0 if away else half if second <= KILLED_S else max(4, half - 14)
    for name, sessions, gone in (("f1", f1, away), ("f2", PEERS - f1 if not away else half + 9, False)):
        recorder.sample(f"{name}.sessions", sessions)
        if gone:
            continue  # a dead process has no figures
        load = sessions * 34 * min(second / 8, 1)
        recorder.sample(f"{name}.messages_in_per_s", load * draw.uniform(0.95, 1.05))
        recorder.sample(f"{name}.messages_out_per_s", load * draw.uniform(1.02, 1.15))
        recorder.sample(f"{name}.bytes_out_per_s", load * draw.uniform(900, 1_100))
        recorder.sample(f"{name}.link_delay_ms", 1.2 * slower * draw.uniform(0.8, 1.6))
        recorder.sample(f"{name}.cpu_share", 0.11 + load / 6_000 * draw.uniform(0.95, 1.1))
        recorder.sample(f"{name}.rss_mb", 46 + sessions * 0.12 + second * 0.03)


def _others(recorder, draw, second, away):
    busy = 0.4 if away else min(second / 8, 1)
    recorder.sample("backend.cpu_share", 0.08 + 0.62 * busy * draw.uniform(0.95, 1.05))
    recorder.sample("backend.rss_mb", 71 + second * 0.12)
    recorder.sample("backend.commits_per_s", 410 * busy * draw.uniform(0.95, 1.05))
    recorder.sample("chain.cpu_share", 0.02 * draw.uniform(0.5, 2))
    recorder.sample("chain.rss_mb", 64.0)
    recorder.sample("workers.cpu_share", 0.9 * busy * draw.uniform(0.9, 1.1))
    recorder.sample("workers.rss_mb", 212 + second * 0.2)
    recorder.sample("chain.height", 160 + second // 10)
    for _ in range(25):
        recorder.observe("gossip.propagation", draw.lognormvariate(math.log(0.24), 0.6))
    recorder.sample("gossip.propagation_s", 0.24 * draw.uniform(0.8, 1.5))


def _marks(recorder, now_s):
    for at_s, kind, text, until_s in (
        (KILLED_S, "fault", "kill f1", None),
        (BACK_S, "good", "f1 is back", None),
        (36.0, "fault", "link of f2: delay", 39.0),
        (45.0, "info", "listeners: 300 updates/s", 55.0),
    ):
        now_s[0] = at_s
        recorder.mark(kind, text, until_s)


def result(recorder, seed, changes):
    metrics = recorder.metrics()
    wanted = (
        ("payments.success_ratio >= 0.99", metrics["payments.success_ratio"] >= 0.99),
        ("payments.p99_s < 1", metrics["payments.p99_s"] < 1),
        ("reconnect.p99_s < 5", metrics["reconnect.p99_s"] < 5),
        ("frontend.rss_mb.max < 300", metrics["frontend.rss_mb.max"] < 300),
    )
    values = {
        "name": "frontend_churn",
        "claim": "A frontend dies under two hundred payments in flight, and no satoshi is lost.",
        "mode": "cluster",
        "seed": seed,
        "command": f"lnsim run scenarios/frontend_churn.yaml --seed {seed}",
        "started": "2026-01-09T14:02:11+00:00",
        "duration_s": float(DURATION_S),
        "wall_s": 74.2,
        "versions": {"lnsim": "0.1.0", "python": "3.11.9", "commit": "4be1f0c"},
        "machine": {"processors": "2", "memory": "8 GB", "system": "Linux 6.8"},
        "metrics": metrics,
        "series": recorder.series(),
        "marks": recorder.marks,
        "histograms": recorder.snapshot().histograms,
        "expectations": [Check(text, holds, metrics[text.split()[0]]) for text, holds in wanted],
        "invariants": [
            Check(text, holds=True)
            for text in (
                "every msat accounted for",
                "both ends of every channel agree",
                "no HTLC left over, no payment without an end",
                "graphs agree",
                "no process left behind",
            )
        ],
    }
    return RunResult(**values | changes)
