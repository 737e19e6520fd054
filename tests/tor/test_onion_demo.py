"""`lnsim demo --tor`, as a user runs it: peers come by the onion address, and come again when tor was killed."""

import json
import os
import subprocess
import tempfile

import pytest
from onion import require_tor

from lnsim.cluster_process import command

pytestmark = [pytest.mark.tor, pytest.mark.timeout(180)]

HOLDING = {"msat_conserved": True, "htlcs_lost": 0, "channels_closed": 0, "processes_left": 0}


def demo(*arguments):
    """In a place of its own, short since sockets live in it: `lnsim demo kill` of another test must not find it."""
    argv = [*command("lnsim"), "demo", "--seed", "7", *arguments]
    with tempfile.TemporaryDirectory(prefix="t") as place:
        environment = {**os.environ, "TMPDIR": place}
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=150, env=environment)


def test_payments_by_onion_while_tor_is_killed():
    require_tor()
    done = demo("--tor", "--json", "--for", "16s", "--kill", "tor@2s")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    print(summary["tor"], summary["payments"])
    assert summary["invariants"] == HOLDING
    assert summary["payments"]["settled"] > 50
    assert summary["tor"]["address"].endswith(".onion:9735")
    assert summary["tor"]["restarts"] == 1
    assert summary["tor"]["targets_up"] == 2
    assert summary["tor"]["streams"] == 3, "alice, carol and erin; the hub dials bob and dave"


def test_a_tor_to_kill_needs_one():
    done = demo("--kill", "tor@2s")
    assert done.returncode == 2
    assert "there is a tor with --tor only" in done.stderr


def test_without_tor_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = demo("--tor", "--for", "5s")
    assert done.returncode == 2
    assert done.stderr == "lnsim: --tor: there is no tor on this machine; Debian: apt-get install tor\n"
