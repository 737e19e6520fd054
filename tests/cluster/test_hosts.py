"""The hosts themselves: their cables do what is asked of them, and nothing is left when they are gone."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosts import Impossible, Lan, give_up

pytestmark = pytest.mark.cluster

ONE_WAY_MS = 30.0


@pytest.fixture
def pair():
    try:
        with Lan() as lan:
            yield lan.host("left", "10.0.0.1"), lan.host("right", "10.0.0.2")
    except Impossible as why:
        give_up(str(why))


def connect_s(host) -> float:
    """How long it takes to connect to the other one, there and back."""

    def connect() -> float:
        began_s = time.monotonic()
        with socket.create_connection(("10.0.0.2", 9735), timeout=2):
            return time.monotonic() - began_s

    return host.here(connect)


def test_a_cable_is_pulled_and_plugged_in_slowed_and_hastened(pair):
    left, right = pair
    with right.here(lambda: socket.create_server(("10.0.0.2", 9735))):
        assert connect_s(left) < 2 * ONE_WAY_MS / 1_000
        right.cut()
        with pytest.raises(TimeoutError):
            connect_s(left)
        right.heal()
        connect_s(left)
        right.lose("10.0.0.1")
        with pytest.raises(TimeoutError):
            connect_s(left)
        right.find("10.0.0.1")
        right.delay(ONE_WAY_MS, 0)
        slow_s = connect_s(left)
        print(f"by {right.shaped_by}: {slow_s * 1_000:.0f} ms there and back")
        assert slow_s > 2 * ONE_WAY_MS / 1_000
        right.hasten()
        assert connect_s(left) < slow_s


def test_ctrl_c_leaves_no_namespace_and_no_process():
    script = Path(__file__).with_name("hosts.py")
    argv = [sys.executable, script, "left=10.0.0.1", "right=10.0.0.2"]
    opened = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with opened.stdout:
        said = [opened.stdout.readline(), opened.stdout.readline()]
        if opened.poll() is not None or "lnlan" not in said[1]:
            give_up("".join(said))
        namespace = said[1].split()[-2]
        argv = ["ip", "netns", "exec", namespace, "sh", "-c", "echo there; exec sleep 60"]
        inside = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert inside.stdout.readline() == b"there\n"
        opened.send_signal(signal.SIGINT)
        assert opened.wait(20) == 0
    assert inside.wait(20) == -signal.SIGKILL
    inside.stdout.close()
    assert not list(Path("/run/netns").glob(f"lnlan{opened.pid}-*"))
