"""`lnsim run FILE --target` at `lnnode standalone` over a chain that is there already: payments, channels, light peers."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.e2e

SCENARIO = """
# Everything at once at a node that was there before.
duration_s: 6
topology:
  peers:
    shops: {count: 2, channels: {}}
    people: {count: 2, channels: {each: 2}}
    idle: {count: 20, ping_interval_s: 1}
  chain: {block_interval_s: 1}
workloads:
  - {run: payments, payers: [people], payees: [shops, people], rate_per_s: 6}
  - {run: payments, payers: [shops], payees: [hub], users: 1, keysend: 1}
  - {run: channel_churn, group: people, rate_per_s: 0.5, open_for_s: 1, duration_s: 3}
  - {run: reconnect_storm, group: idle, start_s: 2}
  - {run: fee_spike, start_s: 3, for_s: 1}
expect:
  - payments.success_ratio >= 0.8
  - payments.settled >= 30
  - swarm.idle.connected.last == 20
"""
SCRIPTS = Path(sys.executable).parent
END_S = 20


@contextmanager
def running(*argv):
    """A process that is ready, and its first line."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=END_S)


@pytest.fixture
def chain(tmp_path):
    with running(
        SCRIPTS / "lnsim", "chain", "--datadir", tmp_path, "--rpcuser", "me", "--rpcpassword", "sesame"
    ) as it:
        yield it


@pytest.fixture
def node(chain, tmp_path):
    config = {
        "listen": "127.0.0.1:0",
        "backend": {
            "data_dir": str(tmp_path / "node"),
            "flush_interval_s": 0.2,
            "bitcoind": {"url": chain["rpc_url"], "user": "me", "password": "sesame", "zmq": chain["zmq"]},
        },
    }
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump(config))
    with running(SCRIPTS / "lnnode", "standalone", path) as it:
        yield it


def test_a_node_of_ours_that_was_there_before(chain, node, tmp_path):
    path = tmp_path / "everything.yaml"
    path.write_text(SCENARIO)
    target = f"{node['node_id']}@{node['listen']}"
    url = re.sub("//", "//me:sesame@", chain["rpc_url"])
    argv = [SCRIPTS / "lnsim", "run", path, "--json", "--seed", "4", "--target", target, "--chain", url]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, result["complaints"]) == (0, []), result["expectations"]
    assert all(check["holds"] for check in result["invariants"])
    assert result["metrics"]["channels.closed"] >= 1
    assert "sesame" not in done.stdout
