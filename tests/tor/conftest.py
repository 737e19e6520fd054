"""One private Tor network for all tests of a run."""

import tempfile
from pathlib import Path

import pytest
import pytest_asyncio
from onion import Frontend, Lntor, require_tor

from tor.testnet import TorNetwork


@pytest.fixture(scope="session")
def network():
    require_tor()
    with TorNetwork() as network:
        yield network


@pytest_asyncio.fixture
async def frontends(network):
    """Three of them, started."""
    started = [await Frontend(network, name).start() for name in ("red", "green", "blue")]
    yield started
    for each in started:
        await each.stop()


@pytest_asyncio.fixture
async def lntor(network, frontends):
    """`lntor(service={...})`: a Lntor in front of the frontends, not started; ended with the test."""
    made = []

    def make(name="lntor", targets=None, **settings):
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=network.directory))
        targets = targets or [{"address": each.address} for each in frontends]
        made.append(Lntor(network, directory, targets, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.stop()
