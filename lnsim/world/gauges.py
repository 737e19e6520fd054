"""Figures of a world's processes as series, by the names that cluster mode gives them."""

from collections.abc import Callable, Mapping

from lnsim.metrics.recorder import Recorder
from node.backend.backend import Backend
from node.frontend.frontend import Frontend

RATES = ("messages_in", "messages_out", "bytes_out")


class Gauges:
    """Read once a second; what counts up becomes a rate."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._last: dict[str, int] = {}

    def frontends(self, frontends: Mapping[str, Frontend], is_up: Callable[[str], bool]) -> None:
        for name, frontend in frontends.items():
            self._recorder.sample(f"{name}.sessions", len(frontend.connections) if is_up(name) else 0)
            for rate in RATES:
                self._rate(f"{name}.{rate}", getattr(frontend, rate))

    def backend(self, backend: Backend) -> None:
        self._rate("backend.commits", backend.store.commits)
        for name, link in backend.switchboard.links.items():
            self._recorder.sample(f"{name}.link_delay_ms", 1_000 * link.delay_s)

    def _rate(self, name: str, count: int) -> None:
        """A new life counts from zero."""
        before = self._last.get(name, 0)
        self._recorder.sample(f"{name}_per_s", count - before if count >= before else count)
        self._last[name] = count
