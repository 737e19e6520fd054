"""Figures of a run that are made of others: rates by the second, ratios at the end."""

from collections.abc import Callable

from lnsim.metrics.recorder import Recorder

FINAL = ("attempted", "settled", "failed", "unknown")


class Rates:
    """Payments of each second, as series."""

    def __init__(self, recorder: Recorder, in_flight: Callable[[], int]) -> None:
        self._recorder = recorder
        self._in_flight = in_flight
        self._last = dict.fromkeys(FINAL, 0.0)

    def sample(self) -> None:
        for name in FINAL[1:3]:
            now = self._recorder.value(f"payments.{name}")
            self._recorder.sample(f"payments.{name}_per_s", now - self._last[name])
            self._last[name] = now
        self._recorder.sample("payments.in_flight", self._in_flight())
        window = self._recorder.window("payments")
        if window.count:
            self._recorder.sample("payments.p50_s", window.percentile(0.5))
            self._recorder.sample("payments.p99_s", window.percentile(0.99))


def summarize(recorder: Recorder, duration_s: float) -> None:
    """Put the ratios beside what they are made of."""
    settled, attempted = recorder.value("payments.settled"), recorder.value("payments.attempted")
    if attempted:
        for name in FINAL:
            recorder.put(f"payments.{name}", recorder.value(f"payments.{name}"))
        recorder.put("payments.success_ratio", settled / attempted)
        recorder.put("payments.settled_per_s", settled / duration_s)
