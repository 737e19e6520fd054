"""`lnsim demo`, as a user runs it: real processes, real sockets."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from lnsim.cluster_process import command

pytestmark = pytest.mark.e2e

HOLDING = {"msat_conserved": True, "htlcs_lost": 0, "channels_closed": 0, "processes_left": 0}


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command("lnsim"), "demo", *arguments],
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = demo.communicate(timeout=120)
    return demo.returncode, out, err


def summary(place: Path, *arguments: str) -> dict[str, Any]:
    status, out, err = finish(start(place, "--json", "--seed", "7", *arguments))
    assert status == 0, f"{out}\n{err}"
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert result["invariants"] == HOLDING
    assert list(place.iterdir()) == []
    return result


@pytest.fixture
def place() -> Any:
    """A short path: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        yield Path(directory)


def test_payments_settle_on_both_frontends(place: Path) -> None:
    result = summary(place, "--for", "8s")
    assert result["seed"] == 7
    assert result["payments"]["settled"] > 50
    assert result["payments"]["failed"] == result["payments"]["pending"] == 0
    assert 0 < result["payments"]["p50_ms"] <= result["payments"]["p99_ms"]
    for frontend in result["frontends"]:
        assert frontend["sessions"] > 0
        assert frontend["payments"] > 0
        assert frontend["messages_in"] > 0
        assert frontend["rss_mb"] > 0


def test_a_frontend_killed_in_the_middle(place: Path) -> None:
    result = summary(place, "--for", "8s", "--kill", "frontend@3s")
    assert result["payments"]["settled"] > 50
    assert sum(frontend["restarts"] for frontend in result["frontends"]) == 1
    assert sum(frontend["sessions"] for frontend in result["frontends"]) == 5


def test_the_backend_killed_in_the_middle(place: Path) -> None:
    result = summary(place, "--for", "8s", "--kill", "backend@3s")
    assert result["payments"]["settled"] > 50
    assert result["backend"]["restarts"] == 1


def test_a_kill_that_did_not_happen_is_a_complaint(place: Path) -> None:
    status, out, _ = finish(start(place, "--json", "--for", "3s", "--kill", "f1@1s", "--kill", "f1@1050ms"))
    assert status == 1
    assert json.loads(out.splitlines()[-1])["complaints"] == [
        "--kill f1@1.05s not carried out: f1 is down already"
    ]


def test_ctrl_c_leaves_nothing_behind(place: Path) -> None:
    demo = start(place)
    assert demo.stdout is not None
    line = ""
    while "settled" not in line:  # one line a second, once payments run
        line = demo.stdout.readline()
        assert line, "it ended by itself"
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) == 1 + 1 + 2 + 5, "chain, backend, two frontends, five peers"
    kill = subprocess.run(
        [*command("lnsim"), "demo", "kill", "frontend"],
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (kill.returncode, kill.stdout[:8]) == (0, "killed f"), kill.stderr
    address = subprocess.run(
        [*command("lnsim"), "demo", "address"],
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    told = dict(line.split(maxsplit=1) for line in address.stdout.splitlines())
    assert Path(told["api"]).is_socket()
    assert told["curl"] == f"curl --unix-socket {told['api']} -X POST http://node/getinfo"
    demo.send_signal(signal.SIGINT)
    status, out, err = finish(demo)
    assert status == 0, f"{out}\n{err}"
    assert not any(child.is_running() for child in children)
    assert list(place.iterdir()) == []


def test_ctrl_c_while_it_starts(place: Path) -> None:
    demo = start(place, "--json")
    while not list(place.glob("lnsim-demo-*/*.log")):  # the first process is on its way
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    status, _, err = finish(demo)
    assert status == 130
    assert err.strip() == "lnsim: stopped before the first payment"
    assert list(place.iterdir()) == []
