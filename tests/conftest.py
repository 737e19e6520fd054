"""For all tests."""

import pytest
from hypothesis import settings
from postgres_server import Server

# How long one example takes says more about the machine than about the code; pytest's own timeout ends what hangs.
settings.register_profile("lnsim", settings(), deadline=None)
settings.load_profile("lnsim")

# What takes a minute or more goes first: workers take whole files, and the last ones to be taken should be short.
LONG = (
    "tests/tor/test_onion_service.py",
    "tests/lnsim/test_demo.py",
    "tests/interop/test_cluster_peers.py",
    "tests/tor/test_same_key.py",
    "tests/tor/test_onion_scenario.py",
    "tests/e2e/test_standby.py",
    "tests/tor/test_onionbalance.py",
    "tests/tor/test_dial_out.py",
)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONG)))


@pytest.fixture(scope="session")
def postgres():
    """One server for all tests of a run (of a worker, with xdist); each test makes databases of its own."""
    server = Server()
    yield server
    server.end()
