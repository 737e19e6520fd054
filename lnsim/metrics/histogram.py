"""Latencies and the like in few buckets: any percentile within 2 %, and those of many processes merge exactly."""

import math

from msgspec import Struct

STEPS = 32  # buckets from one power of two to the next: a bucket's middle is at most 1/64 off
SMALLEST = 1e-9  # what is less counts as nothing; of seconds, a nanosecond
LARGEST = 1e15  # with SMALLEST it bounds the buckets: 80 powers of two, 2,560 buckets
NOTHING = -1_000_000  # the bucket of values below SMALLEST; before all others


class Histogram(Struct):
    """Grows by `observe` and `merge`. Plain data through `msgspec.to_builtins(it, str_keys=True)` and back."""

    buckets: dict[int, int] = {}
    count: int = 0
    total: float = 0.0
    minimum: float = 0.0  # 0 while nothing was observed, as is maximum
    maximum: float = 0.0

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def observe(self, value: float) -> None:
        assert math.isfinite(value), f"{value} is no measurement"
        value = max(value, 0.0)  # a difference of two clocks may be a hair below
        self.minimum = min(self.minimum, value) if self.count else value
        self.maximum = max(self.maximum, value)
        bucket = _bucket(value)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        if not other.count:
            return
        self.minimum = min(self.minimum, other.minimum) if self.count else other.minimum
        self.maximum = max(self.maximum, other.maximum)
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total

    def copy(self) -> "Histogram":
        return Histogram(dict(self.buckets), self.count, self.total, self.minimum, self.maximum)

    def since(self, earlier: "Histogram") -> "Histogram":
        """What came after `earlier`, a copy of this one; least and largest are then known within a bucket only."""
        buckets = {
            bucket: count - earlier.buckets.get(bucket, 0)
            for bucket, count in self.buckets.items()
            if count > earlier.buckets.get(bucket, 0)
        }
        count = self.count - earlier.count
        if not count:
            return Histogram()
        low, high = _edges(min(buckets))[0], _edges(max(buckets))[1]
        least, largest = max(low, self.minimum), min(high, self.maximum)
        return Histogram(buckets, count, max(self.total - earlier.total, 0.0), least, largest)

    def percentile(self, share: float) -> float:
        """The value that `share` of all values do not exceed, 0.5 for the median; 0 where nothing was observed."""
        assert 0 <= share <= 1, f"{share} is no share"
        left = max(1, math.ceil(share * self.count))
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return min(max(sum(_edges(bucket)) / 2, self.minimum), self.maximum)
        return 0.0

    def bars(self) -> list[tuple[float, float, int]]:
        """From, to, how many: for a plot, ascending."""
        return [(*_edges(bucket), self.buckets[bucket]) for bucket in sorted(self.buckets)]


def _bucket(value: float) -> int:
    if value < SMALLEST:
        return NOTHING
    fraction, exponent = math.frexp(min(value, LARGEST))
    return exponent * STEPS + int((fraction - 0.5) * 2 * STEPS)


def _edges(bucket: int) -> tuple[float, float]:
    if bucket == NOTHING:
        return 0.0, 0.0
    exponent, step = divmod(bucket, STEPS)
    unit = math.ldexp(0.5 / STEPS, exponent)
    return (STEPS + step) * unit, (STEPS + step + 1) * unit
