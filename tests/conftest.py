"""For all tests."""

import pytest
from hypothesis import settings
from postgres_server import Server

# How long one example takes says more about the machine than about the code; pytest's own timeout ends what hangs.
settings.register_profile("lnsim", settings(), deadline=None)
settings.load_profile("lnsim")


@pytest.fixture(scope="session")
def postgres():
    """One server for all tests of a run (of a worker, with xdist); each test makes databases of its own."""
    server = Server()
    yield server
    server.end()
