"""Figures of a run that are made of others: rates by the second, ratios at the end."""

from lnsim.metrics.histogram import Histogram
from lnsim.metrics.recorder import Recorder

FINAL = ("attempted", "settled", "failed", "unknown")


class Rates:
    """Payments of each second, as series."""

    def __init__(self, recorder: Recorder) -> None:
        self.in_flight = 0
        self._recorder = recorder
        self._last = dict.fromkeys(FINAL, 0.0)
        self._latencies = Histogram()  # since the last sample

    def settled(self, latency_s: float) -> None:
        self._latencies.observe(latency_s)

    def sample(self) -> None:
        for name in FINAL[1:3]:
            now = self._recorder.counter(f"payments.{name}")
            self._recorder.sample(f"payments.{name}_per_s", now - self._last[name])
            self._last[name] = now
        _put_ratio(self._recorder)
        self._recorder.sample("payments.in_flight", self.in_flight)
        if self._latencies.count:
            self._recorder.sample("payments.p50_s", self._latencies.percentile(0.5))
            self._recorder.sample("payments.p99_s", self._latencies.percentile(0.99))
            self._latencies = Histogram()


def summarize(recorder: Recorder, duration_s: float) -> None:
    """Put the ratios beside what they are made of; where payments were made, all their counts are told."""
    if not recorder.counter("payments.attempted"):
        return
    _put_ratio(recorder)
    for name in FINAL:
        recorder.put(f"payments.{name}", recorder.counter(f"payments.{name}"))
    recorder.put("payments.settled_per_s", recorder.counter("payments.settled") / duration_s)


def _put_ratio(recorder: Recorder) -> None:
    """Of those that have ended, as far as the run is."""
    settled = recorder.counter("payments.settled")
    ended = settled + recorder.counter("payments.failed") + recorder.counter("payments.unknown")
    if ended:
        recorder.put("payments.success_ratio", settled / ended)
