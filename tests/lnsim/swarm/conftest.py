"""A swarm and what it aims at, for each test."""

import pytest
from swarm_site import Site

from node.frontend import frontend

SWEEP_S = 0.02


@pytest.fixture
async def site(tmp_path, monkeypatch):
    monkeypatch.setattr(frontend, "SWEEP_INTERVAL_S", SWEEP_S)
    built = Site(tmp_path)
    yield built
    await built.stop()
    assert built.failures == [], "an exception left a task"
