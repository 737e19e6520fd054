"""How figures are told to people: the unit is in the metric's name, and whether more of it is good."""

import re
from enum import Enum

LATENCY = re.compile(r"(^|[._])(p50|p90|p99|max|mean|min)_s$|[._]propagation_s|payments\.p\d+_s|\.delay_s$")
BETTER_LESS = re.compile(
    r"rss_mb|cpu_share|link_delay_ms|failed|refused_wrongly|\.late\b|late_pongs|complaint|"
    r"timeouts?\b|lost|bytes_per_peer|kib_per_peer|fee_msat"
)
BETTER_MORE = re.compile(
    r"success_ratio|settled|answered|completed|commits_per_s|seeds_per_s|speed_?up|\.connected|\.ready\b"
)


class Direction(Enum):
    UP = 1  # more is better
    DOWN = -1
    NEITHER = 0


def direction(metric: str) -> Direction:
    if BETTER_LESS.search(metric):
        return Direction.DOWN
    if BETTER_MORE.search(metric):
        return Direction.UP
    return Direction.DOWN if LATENCY.search(metric) else Direction.NEITHER


def told(metric: str, value: float) -> str:
    """A figure with its unit, in as few digits as it deserves."""
    name = re.sub(r"\.(max|mean|min|last)$", "", metric)
    if name.endswith("per_s"):
        return f"{_bytes(value) if 'bytes' in name else number(value)}/s"
    if name.endswith("_ms"):
        return seconds(value / 1_000)
    if name.endswith("_s"):
        return seconds(value)
    if name.endswith("_mb"):
        return f"{number(value)} MB"
    if name.endswith(("ratio", "share")):
        return f"{value * 100:.4g} %"
    if name.endswith("bytes"):
        return _bytes(value)
    return number(value)


def number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0 s"
    if size < 1e-3:
        return f"{value * 1e6:.3g} µs"
    if size < 1:
        return f"{value * 1e3:.3g} ms"
    if size < 600:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1_000:
            return f"{value:.3g} {unit}"
        value /= 1_000
    return f"{value:,.3g} TB"
