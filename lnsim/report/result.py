"""The result of a run, as one value."""

from msgspec import Struct

from lnsim.metrics.recorder import Mark, Measured, Series


class Check(Struct, frozen=True):
    """Something that had to be true of the run; `value` is what was found, in words or as a figure."""

    text: str
    holds: bool
    value: float | str | None = None


class RunResult(Struct, frozen=True, kw_only=True):
    """All that is known of a run when it has ended. Times are seconds since its workloads began."""

    name: str
    claim: str
    mode: str  # cluster, world or target
    seed: int
    command: str  # the line that reproduces it
    started: str  # ISO 8601
    duration_s: float  # as the run counts: virtual in world mode
    wall_s: float  # all of it, building and taking down included
    versions: dict[str, str] = {}
    machine: dict[str, str] = {}
    metrics: dict[str, float] = {}
    series: dict[str, Series] = {}
    marks: list[Mark] = []
    histograms: dict[str, Measured] = {}
    expectations: list[Check] = []
    invariants: list[Check] = []
    complaints: list[str] = []  # what went wrong besides; each fails the run

    @property
    def holds(self) -> bool:
        return not self.complaints and all(check.holds for check in (*self.expectations, *self.invariants))
