"""Measuring: ours and the limit in turns, so that whatever else the machine does meets both alike."""

import time
from collections.abc import Callable, Sequence
from statistics import median

from msgspec import Struct

MIN_ROUNDS = 5  # below that a median says little

# CPU time of this thread: what one core gives, whoever shares it.
cpu_s = time.thread_time


class Timed(Struct, frozen=True):
    """One round: how many operations in how many seconds."""

    operations: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.operations / self.seconds


class Comparison(Struct, frozen=True):
    """Operations per second of ours and of the limit, and the median over the rounds of ours / limit."""

    per_s: float
    limit_per_s: float
    ratio: float


Round = Callable[[], Timed]


def timed(operations: int, work: Callable[[], object]) -> Timed:
    """Run `work`, which does that many operations, on the clock of this thread's CPU time."""
    began_s = cpu_s()
    work()
    return Timed(operations, cpu_s() - began_s)


def compare(ours: Round, limit: Round, seconds: float) -> Comparison:
    """Rounds of ours and of the limit by turns until `seconds` are over; a round should take some 10 to 50 ms."""
    ours(), limit()  # caches filled, code specialised
    pairs: list[tuple[Timed, Timed]] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s or len(pairs) < MIN_ROUNDS:
        if len(pairs) % 2:
            second, first = limit(), ours()
        else:
            first, second = ours(), limit()
        pairs.append((first, second))
    return Comparison(
        per_s=median(mine.per_s for mine, _ in pairs),
        limit_per_s=median(other.per_s for _, other in pairs),
        ratio=median(mine.per_s / other.per_s for mine, other in pairs),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of all lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
