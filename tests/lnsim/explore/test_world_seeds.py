"""Random faults of a few seeds, each in a world of its own: whatever breaks, no msat is lost."""

import pytest

from lnsim.explore.draw import scenario_of, with_faults
from lnsim.explore.world import what_breaks

SEEDS = range(24)  # a minute of one core; `lnsim explore` takes as many as one likes


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost(seed):
    assert what_breaks(with_faults(scenario_of(seed), seed), seed) == ()
