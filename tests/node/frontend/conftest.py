"""A frontend on real sockets for each test, between a scripted backend and peers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from noise_client import Site

from lnsim.graph_generator import generate
from node.frontend import frontend
from node.gossip.graph import Delta

SWEEP_S = 0.02


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(frontend, "SWEEP_INTERVAL_S", SWEEP_S)
    built = Site(str(tmp_path / "link.sock"))
    yield built
    await built.stop()
    assert built.failures == [], "an exception left a task"


@pytest.fixture(scope="session")
def small() -> list[Delta]:
    """Six signed channels, each followed by its two updates; then four node_announcements."""
    return list(generate(7, channels=6, nodes=4))
