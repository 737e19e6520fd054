"""A failure is made as small as it can be: what has no part in it goes."""

from hypothesis import given
from hypothesis import strategies as st

from lnsim.explore.draw import scenario_of, with_faults
from lnsim.explore.search import Tried, search, smallest
from lnsim.scenario import workloads as wl
from lnsim.scenario.check import check
from lnsim.scenario.load import dump, load


def breaks_with_two_kills(scenario, seed):
    """A stand-in for a run: a node that bears one kill of the backend, and not two."""
    kills = [each for each in scenario.workloads if isinstance(each, wl.Kill) and each.what == "backend"]
    return ("lost",) if len(kills) >= 2 else ()


def never_breaks(scenario, seed):
    return ()


def test_what_has_no_part_in_a_failure_goes():
    tried = next(t for t in search(None, iter(range(1_000)), 1, None, breaks_with_two_kills) if t.complaints)
    found = smallest(tried, breaks_with_two_kills)
    assert [type(each) for each in found.scenario.workloads] == [wl.Kill, wl.Kill]
    assert found.scenario.topology.cluster.frontends == 1
    assert found.scenario.topology.peers["payers"].count == 1
    assert found.scenario.duration_s < tried.scenario.duration_s
    assert found.complaints == ("lost",)


def test_what_does_not_fail_again_is_left_as_it_was():
    tried = Tried(3, with_faults(scenario_of(3), 3), ("once",))
    found = smallest(tried, never_breaks)
    assert found.scenario == tried.scenario
    assert found.complaints == ("once",)


@given(st.integers(0, 10_000))
def test_every_seed_gives_a_legal_scenario_that_a_file_can_hold(tmp_path_factory, seed):
    scenario = with_faults(scenario_of(seed), seed)
    check(scenario)
    assert with_faults(scenario_of(seed), seed) == scenario
    path = tmp_path_factory.mktemp("drawn") / "explore.yaml"
    path.write_text(dump(scenario))
    assert load(path) == scenario
