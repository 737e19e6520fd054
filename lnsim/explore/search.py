"""Seed after seed on all cores, until the time is up or something breaks."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress

import msgspec
from msgspec import Struct

from lnsim.explore.draw import scenario_of, with_faults
from lnsim.explore.shrink import shrink
from lnsim.scenario.check import check
from lnsim.scenario.model import Scenario
from node.errors import Refused

Runs = Callable[[Scenario, int], tuple[str, ...]]  # one world run: what broke, nothing if it held


class Tried(Struct, frozen=True):
    """One seed, and what broke with it."""

    seed: int
    scenario: Scenario
    complaints: tuple[str, ...] = ()
    wall_s: float = 0.0


class Found(Struct, frozen=True):
    """A failure, as small as it could be made."""

    seed: int
    scenario: Scenario
    complaints: tuple[str, ...]
    runs: int


def try_seed(base: Scenario | None, seed: int, run: Runs) -> Tried:
    """Faults of this seed on top of the scenario, or of a network of this seed; run once."""
    scenario = with_faults(scenario_of(seed) if base is None else base, seed)
    began_s = time.perf_counter()
    complaints = run(scenario, seed)
    return Tried(seed, scenario, complaints, time.perf_counter() - began_s)


def search(
    base: Scenario | None, seeds: Iterator[int], jobs: int, until_s: float | None, run: Runs
) -> Iterator[Tried]:
    """What came of each seed, as they end. `run` is a module's function where `jobs` is more than one."""
    began_s = time.perf_counter()

    def late() -> bool:
        return until_s is not None and time.perf_counter() - began_s > until_s

    if jobs == 1:
        for seed in seeds:
            yield try_seed(base, seed, run)
            if late():
                return
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[Tried]] = set()
        while True:
            while len(running) < jobs and not late() and (following := next(seeds, None)) is not None:
                running.add(pool.submit(try_seed, base, following, run))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def smallest(tried: Tried, run: Runs) -> Found:
    """The same failure with as little around it as possible."""
    last = tried.complaints

    def fails(scenario: Scenario) -> bool:
        nonlocal last
        with suppress(Refused):
            check(scenario)
            if complaints := run(scenario, tried.seed):
                last = complaints
                return True
        return False

    scenario, runs = shrink(tried.scenario, fails)
    return Found(tried.seed, msgspec.structs.replace(scenario, seed=tried.seed), last, runs)
