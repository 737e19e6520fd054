"""What a fault did to connections through an onion service, told from when each of them began and ended."""

from collections import defaultdict

import pytest

from lnsim.onion.figures import Outages, Returns


@pytest.fixture
def seen():
    return defaultdict(list)


@pytest.fixture
def outages(seen):
    return Outages(lambda name, value: seen[name].append(value))


def test_a_fault_lasts_to_the_begin_of_the_last_connection_that_failed(outages, seen):
    outages.tried(0.5, 1.5, came_through=False)  # before it
    outages.fault(1.0)
    outages.tried(0.9, 1.6, came_through=False)
    outages.tried(1.2, 1.3, came_through=True)
    outages.tried(2.4, 9.0, came_through=False)
    outages.tried(1.8, 9.5, came_through=False)
    outages.close()
    outages.close()
    assert seen == {"onion.failing": [pytest.approx(1.4)]}


def test_each_fault_is_told_once_and_one_that_nobody_felt_as_zero(outages, seen):
    outages.fault(1.0)
    outages.tried(2.0, 3.0, came_through=False)
    outages.fault(5.0)
    outages.tried(5.5, 5.6, came_through=True)
    outages.tor_away(7.0, 7.5)
    outages.tried(8.0, 8.1, came_through=False)
    outages.close()
    assert seen == {"onion.failing": [1.0, 0.0]}


def test_tor_is_back_with_the_first_connection_that_began_after_it_was_down(outages, seen):
    outages.tor_away(1.0, 1.5)
    outages.tried(1.4, 3.0, came_through=True)  # it was on its way before
    outages.tried(4.0, 5.0, came_through=False)
    outages.tried(4.5, 6.5, came_through=True)
    outages.tried(5.0, 6.6, came_through=True)
    outages.close()
    assert seen == {"onion.reachable": [5.5]}


def test_a_frontend_is_put_back_when_tor_has_it_again(seen):
    returns = Returns(lambda name, value: seen[name].append(value))
    returns.look("f1", 0.0, is_up=True, is_target=False)  # its first start is no return
    returns.look("f1", 1.0, is_up=True, is_target=True)
    returns.look("f1", 2.0, is_up=False, is_target=True)
    returns.look("f1", 3.0, is_up=True, is_target=False)
    returns.look("f2", 3.0, is_up=True, is_target=True)
    returns.look("f1", 4.25, is_up=True, is_target=True)
    returns.look("f1", 5.0, is_up=True, is_target=True)
    assert seen == {"onion.put_back": [1.25]}
