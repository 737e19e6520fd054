"""The store: transactions of one update and of a hundred, beside what the disk gives."""

import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from lnsim.bench.measure import MIN_ROUNDS
from lnsim.bench.plan import Plan
from node.backend.sqlite_store import SqliteStore
from node.backend.store import Store, put
from node.errors import Refused

UPDATE_BYTES = 2_500  # a channel with a few HTLCs
CHANNELS = 200
BATCH = 100
SYNC_BYTES, SYNC_BLOCKS = 4_096, 4_000
LEASE_S = 30.0

Figures = dict[str, dict[str, float]]


def run(plan: Plan) -> dict[str, Any]:
    """Wall clock, each database and the bare disk in turns; PostgreSQL where a URL is given."""
    directory = plan.scratch("store")
    stores: dict[str, Store] = {"sqlite": SqliteStore(directory / "x.sqlite")}
    if plan.database:
        stores["postgresql"] = _postgresql(plan.database)
    try:
        return _measure(stores, directory / "syncs", plan.seconds)
    finally:
        for store in stores.values():
            store.close()


def _postgresql(url: str) -> Store:
    """Raises Refused for a node's own database."""
    from node.backend.lease import Lease
    from node.backend.postgres_store import PostgresStore, prepare

    if prepare(url) is not None:
        raise Refused("--database: is a node's; make an empty one")
    lease = Lease(url, LEASE_S)
    if lease.attempt() is not None:
        raise Refused("--database: is in use")
    return PostgresStore(url, lease)


def _measure(stores: dict[str, Store], path: Path, seconds: float) -> Figures:
    works: dict[tuple[str, str], Callable[[], object]] = {("disk", "syncs_per_s"): _sync(path)}
    for name, store in stores.items():
        works[name, "commits_per_s"] = _commit(store, 1)
        works[name, "updates_per_s"] = _commit(store, BATCH)
    rates: dict[tuple[str, str], list[float]] = {figure: [] for figure in works}
    for _ in range(MIN_ROUNDS):
        for figure, work in works.items():
            rates[figure].append(_rate(work, seconds / MIN_ROUNDS))
    found: Figures = {}
    for (name, unit), seen in rates.items():
        found.setdefault(name, {})[unit] = median(seen) * (BATCH if unit == "updates_per_s" else 1)
    return found


def _rate(work: Callable[[], object], seconds: float) -> float:
    began_s, done = time.monotonic(), 0
    while not done or time.monotonic() - began_s < seconds:
        work()
        done += 1
    return done / (time.monotonic() - began_s)


def _sync(path: Path) -> Callable[[], object]:
    """In place, as a log that is written again and again: a file that grows syncs its size too."""
    block, turn = os.urandom(SYNC_BYTES), count()
    path.write_bytes(bytes(SYNC_BYTES * SYNC_BLOCKS))

    def work() -> None:
        with path.open("r+b", buffering=0) as file:
            file.seek(next(turn) % SYNC_BLOCKS * SYNC_BYTES)
            file.write(block)
            os.fdatasync(file.fileno())

    return work


def _commit(store: Store, updates: int) -> Callable[[], object]:
    sql, turn = put("channels"), count()
    rows = [(b"%032d" % number, number, os.urandom(UPDATE_BYTES), 0) for number in range(CHANNELS)]

    def work() -> None:
        first = next(turn) * updates
        store.commit([(sql, [rows[(first + offset) % CHANNELS] for offset in range(updates)])])

    return work
