"""What faults did to connections through the onion service: until when some failed, when the first came through again.

Pure bookkeeping; times are arguments.
"""

from collections.abc import Callable

Observe = Callable[[str, float], None]


class Outages:
    """Mutable. Hears of each fault and of each connection that was tried; `observe` gets the figures in seconds.

    onion.failing, of each fault that leaves tor running: from the fault to the begin of the last connection that failed,
    0 where none did. onion.reachable, of each start of tor: until the first connection was there that began after it.
    """

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._fault_s: float | None = None
        self._failing_s = 0.0
        self._away: tuple[float, float] | None = (
            None  # since when tor's way back is timed, and when it was down
        )

    def fault(self, now_s: float) -> None:
        """Something happens now that leaves tor running."""
        self.close()
        self._fault_s = now_s

    def tor_away(self, since_s: float, now_s: float) -> None:
        """Tor is down now; its way back counts from `since_s`."""
        self.close()
        self._away = since_s, now_s

    def tried(self, began_s: float, now_s: float, *, came_through: bool) -> None:
        """A connection was ready, or failed, just now."""
        if self._away is not None and came_through and began_s >= self._away[1]:
            self._observe("onion.reachable", now_s - self._away[0])
            self._away = None
        if self._fault_s is not None and not came_through and began_s >= self._fault_s:
            self._failing_s = max(self._failing_s, began_s - self._fault_s)

    def close(self) -> None:
        """The last fault has done what it will."""
        if self._fault_s is not None:
            self._observe("onion.failing", self._failing_s)
        self._fault_s, self._failing_s = None, 0.0
        self._away = None


class Returns:
    """Mutable. onion.put_back: from the moment a frontend is up again to the one in which tor has it as a target again."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._was_up: dict[str, bool] = {}
        self._back_s: dict[str, float] = {}

    def look(self, name: str, now_s: float, *, is_up: bool, is_target: bool) -> None:
        if is_up and self._was_up.get(name) is False:
            self._back_s[name] = now_s
        self._was_up[name] = is_up
        if not is_up:
            self._back_s.pop(name, None)
        elif is_target and name in self._back_s:
            self._observe("onion.put_back", now_s - self._back_s.pop(name))
