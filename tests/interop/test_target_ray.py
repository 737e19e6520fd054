"""`lnsim run FILE --ray`: the peers live on a Ray cluster of two nodes, and the run is the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from processes import HERE, require

pytestmark = pytest.mark.interop

END_S = 30
RUN_S = 120
SCENARIO = """
# Peers on other machines pay through a frontend that dies, and are back.
duration_s: 6
topology:
  peers:
    payers: {count: 3, channels: {}}
    idle: {count: 40, ping_interval_s: 1}
workloads:
  - {run: payments, payers: [payers, hub], payees: [payers, hub], rate_per_s: 8, duration_s: 5}
  - {run: kill, what: frontend, start_s: 2}
expect:
  - payments.settled >= 20
  - swarm.idle.connected.last == 40
  - reconnect.p99_s < 5
"""


@pytest.fixture(scope="module")
def ray_address():
    require("ray")
    directory = tempfile.mkdtemp(prefix="ray-")  # short: Ray puts sockets in there
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = subprocess.Popen(
        [sys.executable, HERE / "ray_cluster.py", directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        yield cluster.stdout.readline().decode().strip()
        below = psutil.Process(cluster.pid).children(recursive=True)
        cluster.stdin.close()
        assert cluster.wait(END_S) == 0
        _, alive = psutil.wait_procs(below, END_S)
        assert not alive, alive
    finally:
        for process in psutil.process_iter():
            if _is_of(process, cluster.pid):
                process.send_signal(signal.SIGKILL)
        cluster.stdout.close()
        cluster.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _is_of(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session
    except OSError:
        return False


def lnsim_run(path: Path, *options: str) -> subprocess.CompletedProcess:
    path.write_text(SCENARIO)
    argv = [Path(sys.executable).with_name("lnsim"), "run", path, "--seed", "5", *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S, check=False)


def test_the_same_run_with_its_peers_on_two_nodes(ray_address, tmp_path):
    done = lnsim_run(tmp_path / "far.yaml", "--ray", ray_address, "--report", str(tmp_path / "report"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 workers on 2 of 2 nodes" in done.stdout
    result = json.loads((tmp_path / "report/result.json").read_text())
    assert (result["mode"], result["complaints"]) == ("cluster", [])
    assert {"workers.cpu_share.max", "workers.rss_mb.max", "f1.rss_mb.max"} <= set(result["metrics"])
    assert (tmp_path / "report/report.html").exists()
    assert not list(Path(tempfile.gettempdir()).glob("lnsim-ray-*"))


def test_a_cluster_that_is_not_there_is_told(tmp_path):
    require("ray")
    done = lnsim_run(tmp_path / "far.yaml", "--ray", "127.0.0.1:1")
    assert done.returncode == 1
    assert "--ray 127.0.0.1:1:" in done.stdout
