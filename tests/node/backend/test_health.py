"""When a backend says that it can do its work."""

from types import SimpleNamespace

import pytest

from node.backend.health import complaints


def backend(running=True, failure="", lease_left_s=None):
    """What the probe looks at."""
    store, chain = SimpleNamespace(lease_left_s=lease_left_s), SimpleNamespace(failure=failure)
    return SimpleNamespace(running=running, chain=chain, store=store, waits_for="")


@pytest.mark.parametrize("lease_left_s", [None, 0.5])  # SQLite knows no lease
def test_one_that_leads_and_follows_the_chain_is_ready(lease_left_s):
    assert complaints(backend(lease_left_s=lease_left_s)) == []


def test_one_whose_lease_ran_out_is_not_ready_although_nobody_has_told_it_of_another():
    (said,) = complaints(backend(lease_left_s=0.0))
    assert "lease" in said


def test_one_without_a_chain_is_not_ready():
    assert complaints(backend(failure="refused")) == ["the chain can't be followed: refused"]


def test_one_that_is_not_running_says_only_that():
    assert len(complaints(backend(running=False, failure="refused", lease_left_s=0.0))) == 1
