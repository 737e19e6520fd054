"""`lnsim run` of a scenario whose peers come by the onion address, while whatever may happen to tor does."""

import json
import subprocess

import pytest
from onion import require_tor

from lnsim.cluster_process import command

pytestmark = [pytest.mark.tor, pytest.mark.timeout(300)]

FAILING_S = 4.0  # lntor takes a dead target out within two seconds; a loaded machine may need twice that
REACHABLE_S = 20.0  # aimed at ten
SCENARIO = """\
# Whatever happens to tor, its clients are back, and others notice nothing of it.
duration_s: 45
modes: [cluster]
topology:
  cluster: {frontends: 2, tor: {}}
  peers:
    onions: {count: 20, through: onion, ping_interval_s: 3}
    near: {count: 5, ping_interval_s: 3}
    payers: {count: 2, through: onion, channels: {}}
workloads:
  - {run: payments, payers: [payers], payees: [payers, hub], rate_per_s: 2}
  - {run: tor_control_cut, start_s: 1, for_s: 2}
  - {run: kill, what: f1, start_s: 5}
  - {run: tor_circuits, start_s: 12}
  - {run: tor_kill, start_s: 18, for_s: 2}
"""


def run(scenario, tmp_path, *more):
    path = tmp_path / "scenario.yaml"
    path.write_text(scenario)
    argv = [*command("lnsim"), "run", str(path), "--seed", "1", *more]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=240)


def test_clients_are_back_after_every_fault(tmp_path):
    require_tor()
    done = run(SCENARIO, tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    metrics = result["metrics"]
    print({name: round(value, 2) for name, value in metrics.items() if name.startswith("onion.")})
    assert result["complaints"] == []
    assert [mark["text"] for mark in result["marks"] if mark["kind"] == "fault"] == [
        "control connection of lntor cut",
        "kill f1",
        "circuits of onion clients closed",
        "kill tor",
    ]
    assert metrics["swarm.onions.ready.last"] == 20
    assert metrics["swarm.near.ready.last"] == 5
    assert metrics["payments.settled"] >= 20
    assert metrics["onion.address_changes"] == 0
    assert metrics["onion.circuits_closed"] >= 20
    assert metrics["onion.failing.count"] == 3
    assert metrics["onion.failing.max_s"] < FAILING_S
    assert metrics["onion.put_back.count"] == 1
    assert metrics["onion.put_back.max_s"] < FAILING_S
    assert metrics["onion.reachable.count"] == 1
    assert metrics["onion.reachable.max_s"] < REACHABLE_S


def test_the_world_has_no_tor(tmp_path):
    done = run(SCENARIO, tmp_path, "--world")
    assert done.returncode == 2
    assert "makes sense in cluster mode only" in done.stderr


def test_a_machine_without_tor_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run(SCENARIO, tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "topology.cluster.tor: there is no tor on this machine; Debian: apt-get install tor"
    )
