"""A thread that does one thing again and again, however busy the loop is."""

import threading
import time
from collections.abc import Callable

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot_s() -> float:
    """Like a monotonic clock, but it also counts while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class Pulse:
    """Calls `work` until it says None, waiting as many seconds as it says in between."""

    def __init__(self, name: str, work: Callable[[], float | None]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause_s: float | None = 0.0
        while pause_s is not None and not self._stop.wait(pause_s):
            pause_s = self._work()

    def stop(self, patience_s: float) -> None:
        """Returns once `work` is not running, or after so long."""
        self._stop.set()
        self._thread.join(patience_s)
