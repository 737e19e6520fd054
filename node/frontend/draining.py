"""Moving a frontend's peers away, a few at a time: all at once would be a storm for whoever takes them in."""

import math


class Draining:
    """When it began, how long it takes, and how many there were."""

    __slots__ = ("_count", "_over_s", "_since_s")

    def __init__(self, since_s: float, over_s: float, count: int) -> None:
        self._since_s = since_s
        self._over_s = over_s
        self._count = count

    def due(self, now_s: float, left: int) -> int:
        """How many of those that are left are to go now; they may also have gone by themselves."""
        if now_s >= self._since_s + self._over_s:
            return left
        rest = 1 - (now_s - self._since_s) / self._over_s
        return max(0, left - math.ceil(self._count * rest))
