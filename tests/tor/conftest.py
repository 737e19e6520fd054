"""One private Tor network for all tests of a run."""

import os
import shutil

import pytest

from tor.testnet import TorNetwork


def require_tor() -> None:
    """Go on only where tor is installed: a user's run skips with the reason, CI fails."""
    if missing := [name for name in ("tor", "tor-gencert") if not shutil.which(name)]:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"real tor: no {' and no '.join(missing)} on this machine; Debian: apt-get install tor")


@pytest.fixture(scope="session")
def network():
    require_tor()
    with TorNetwork() as network:
        yield network
