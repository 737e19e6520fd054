"""Our end of a process of ours: whatever becomes of it, whoever asked it something hears so."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from lnsim.api_client import CallFailed
from lnsim.cluster_process import Supervisor
from lnsim.json_lines import Remote

pytestmark = pytest.mark.e2e

SILENT = [sys.executable, "-c", "import signal; print('{}', flush=True); signal.pause()"]
LIMIT_S = 10


async def asked(directory: Path) -> tuple[Supervisor, "asyncio.Task[object]"]:
    """A process that never answers, and a question that is put to it."""
    supervisor = Supervisor(directory, lambda *_: None)
    remote = Remote("x", SILENT)
    await remote.spawn(supervisor)
    question = asyncio.create_task(remote.call("", "anything", {}))
    await asyncio.sleep(0)  # it has been put
    return supervisor, question


async def test_one_that_dies_fails_what_it_was_asked(tmp_path: Path) -> None:
    supervisor, question = await asked(tmp_path)
    supervisor.children["x"].kill()
    with pytest.raises(CallFailed, match=f"x ended with status {-signal.SIGKILL}"):
        await asyncio.wait_for(question, LIMIT_S)
    assert supervisor.given_up == ["x"]


async def test_one_that_is_stopped_does_so_too(tmp_path: Path) -> None:
    supervisor, question = await asked(tmp_path)
    await supervisor.stop()
    with pytest.raises(CallFailed, match=f"x ended with status {-signal.SIGTERM}"):
        await asyncio.wait_for(question, LIMIT_S)
    assert not supervisor.given_up
