"""One run of the virtual world, as `search` wants it: what broke."""

import datetime as dt

from lnsim.run.runner import Origin
from lnsim.run.show import Quiet
from lnsim.scenario.model import Scenario
from lnsim.world.loop import Stuck
from lnsim.world.main import run_world

WORLD_START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def what_breaks(scenario: Scenario, seed: int) -> tuple[str, ...]:
    """Broken invariants in words; expectations are for runs that somebody planned."""
    origin = Origin("world", "", WORLD_START.isoformat())
    try:
        return tuple(run_world(scenario, seed, origin, Quiet()).complaints)
    except Stuck as stuck:
        return (str(stuck),)
