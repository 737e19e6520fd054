"""Processes are started, measured, killed, restarted and ended; none is left."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lnsim import cluster_process
from lnsim.cluster import wait_until
from lnsim.cluster_process import Child, ProcessFailed, Supervisor

pytestmark = pytest.mark.e2e

READY = "import json, os, signal; print(json.dumps({'ready': 'x', 'pid': os.getpid()}), flush=True); "
WAITING = [sys.executable, "-c", READY + "signal.pause()"]
DEAF = [
    sys.executable,
    "-c",
    "import signal; signal.signal(15, signal.SIG_IGN); " + READY + "\nwhile 1: signal.pause()",
]
ECHO = [sys.executable, "-c", READY + "print(input(), flush=True); signal.pause()"]
BROKEN = [sys.executable, "-c", "raise SystemExit('the disk is full')"]


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_child_says_when_it_is_ready_and_what_it_costs(tmp_path: Path) -> None:
    child = Child("x", WAITING, tmp_path)
    ready = await child.start()
    assert ready["pid"] == child.pid
    assert child.usage().rss_mb > 1
    await child.stop()
    assert child.pid is None
    assert not alive(ready["pid"])
    assert child.usage().cpu_s > 0, "what it took is still known afterwards"


async def test_lines_go_both_ways(tmp_path: Path) -> None:
    child = Child("x", ECHO, tmp_path)
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    child.on_line = heard.set_result
    await child.start()
    child.write(b"hello")
    assert await heard == b"hello\n"
    await child.stop()


async def test_one_that_ends_early_is_told_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="the disk is full"):
        await Child("x", BROKEN, tmp_path).start()


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = Child("x", DEAF, tmp_path)
    pid = (await child.start())["pid"]
    await child.stop(grace_s=0.05)
    assert not alive(pid)


async def test_a_killed_one_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_process, "RESTART_PAUSE_S", 0.0)
    again = asyncio.Event()
    supervisor = Supervisor(tmp_path, lambda *said: again.set() if said[0] == "good" else None)
    child = await supervisor.start("x", WAITING, restart=True)
    first = child.pid
    child.kill()
    await again.wait()
    assert child.pid not in (first, None)
    assert child.restarts == 1
    assert supervisor.left_over() == 1
    await supervisor.stop()
    assert supervisor.left_over() == 0


async def test_a_restart_in_order_is_back_when_it_returns(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []
    supervisor = Supervisor(tmp_path, lambda *what: said.append(what))
    child = await supervisor.start("x", WAITING, restart=True)
    first = child.pid
    await supervisor.restart("x")
    assert child.is_up
    assert child.pid not in (first, None)
    assert [kind for kind, _ in said] == ["good"]
    await supervisor.stop()
    assert not child.is_up


async def test_a_restart_of_what_was_killed_waits_for_it(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, lambda *_: None)
    child = await supervisor.start("x", WAITING, restart=True)
    child.kill()
    assert not child.is_up
    await supervisor.restart("x")
    assert child.is_up
    assert child.restarts == 1
    await supervisor.stop()


async def test_a_paused_child_stands_still_and_goes_on(tmp_path: Path) -> None:
    child = Child("x", WAITING, tmp_path)
    await child.start()
    process = psutil.Process(child.pid)
    pausing = asyncio.create_task(child.pause(3600))

    async def stands_still() -> bool:
        return process.status() == psutil.STATUS_STOPPED

    async def goes_on() -> bool:
        return not await stands_still()

    await wait_until(stands_still, 5, "stopped")
    pausing.cancel()
    await wait_until(goes_on, 5, "going on")
    await child.stop()


async def test_stop_during_the_pause_before_a_restart(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, lambda *_: None)
    child = await supervisor.start("x", WAITING, restart=True)
    gone = asyncio.Event()
    child.on_exit.append(lambda *_: gone.set())
    child.kill()
    await gone.wait()
    await supervisor.stop()
    assert supervisor.left_over() == 0


PARENT = """
import asyncio, sys
from pathlib import Path
from lnsim.cluster_process import Child
async def main():
    child = Child("x", [sys.executable, "-c", %r], Path(sys.argv[1]))
    await child.start()
    print(child.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = PARENT % WAITING[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


async def test_a_start_that_is_cancelled_half_way_leaves_a_process_that_stop_ends(tmp_path: Path) -> None:
    child = Child("half", [sys.executable, "-c", "import signal; signal.pause()"], tmp_path)
    starting = asyncio.create_task(child.start())
    for _ in range(3):  # into the middle of spawning
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert child.pid is not None
    await child.stop()
    assert child.pid is None
