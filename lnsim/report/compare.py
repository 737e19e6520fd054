"""Two runs, figure by figure: what changed, by how much, and whether that is good."""

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from lnsim.report.quantity import Direction, direction
from lnsim.report.result import RunResult

SAME = 0.03  # relative; percentiles are known within 2 % only
MAX_NOTABLE = 24  # of figures that are told first
# Told by others well enough: one frontend by all of them, a series of percentiles by the percentiles.
REPEATS = re.compile(r"^f\d+\.|\.(min|last|count)$|\.(p90|mean)_s$|\.p\d+_s\.|_(s|share|ms)\.max$")

Judgement = Literal["better", "worse", "same", "other"]


class Difference(Struct, frozen=True):
    """One metric; `change` is relative to the first run, None where that says nothing."""

    metric: str
    one: float | None
    two: float | None
    change: float | None
    judgement: Judgement


class Condition(Struct, frozen=True):
    """Something that was not the same for both runs, so that figures may differ for it."""

    what: str
    one: str
    two: str


class Comparison(Struct, frozen=True):
    one: RunResult
    two: RunResult
    conditions: list[Condition]
    differences: list[Difference]


def compare(one: RunResult, two: RunResult) -> Comparison:
    names = sorted({*one.metrics, *two.metrics})
    differences = [_difference(name, one.metrics.get(name), two.metrics.get(name)) for name in names]
    return Comparison(one, two, list(_conditions(one, two)), differences)


def notable(comparison: Comparison) -> list[Difference]:
    """What expectations name, then what changed most of that which is known to be good or bad."""
    runs = (comparison.one, comparison.two)
    named = {check.text.split()[0] for run in runs for check in run.expectations if check.text}
    first = [each for each in comparison.differences if each.metric in named]
    judged = [
        each
        for each in comparison.differences
        if each.judgement in ("better", "worse") and each.metric not in named and not _repeats(each.metric)
    ]
    judged.sort(key=lambda each: -abs(each.change) if each.change is not None else 0.0)
    return (first + judged)[:MAX_NOTABLE]


def _repeats(metric: str) -> bool:
    return REPEATS.search(metric) is not None


def _difference(metric: str, one: float | None, two: float | None) -> Difference:
    if one is None or two is None:
        return Difference(metric, one, two, None, "other")
    change = (two - one) / abs(one) if one else None
    if one == two or (change is not None and abs(change) <= SAME):
        return Difference(metric, one, two, change, "same")
    way = direction(metric)
    if way is Direction.NEITHER:
        return Difference(metric, one, two, change, "other")
    better = (two > one) == (way is Direction.UP)
    return Difference(metric, one, two, change, "better" if better else "worse")


def _conditions(one: RunResult, two: RunResult) -> Iterator[Condition]:
    for what in ("name", "claim", "mode", "seed", "duration_s"):
        before, after = str(getattr(one, what)), str(getattr(two, what))
        if before != after:
            yield Condition({"name": "scenario", "duration_s": "duration, s"}.get(what, what), before, after)
    for kind, before_all, after_all in (
        ("version of", one.versions, two.versions),
        ("machine:", one.machine, two.machine),
    ):
        for key in sorted({*before_all, *after_all}):
            before, after = before_all.get(key, "unknown"), after_all.get(key, "unknown")
            if before != after:
                yield Condition(f"{kind} {key}", before, after)
