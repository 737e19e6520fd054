"""The private network itself: up, closed to the outside, and gone without a trace."""

import contextlib
import socket
import time
from datetime import datetime
from pathlib import Path

import pytest

from tor.errors import Unavailable
from tor.testnet import VOTING_INTERVAL_S, TorNetwork

pytestmark = pytest.mark.tor

UP_S = 40  # 8 to 10 on a machine that does nothing else; the aim is 20


def test_a_network_is_up_soon_and_gone_without_a_trace(network):
    began = time.monotonic()
    with TorNetwork() as another:
        took_s = time.monotonic() - began
        print(f"network up after {took_s:.1f} s")
        assert took_s < UP_S
        pids, directory = [each.pid for each in another.daemons], another.directory
        assert len(pids) == 6
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not directory.exists()


class Unlucky(TorNetwork):
    """Somebody else gets the first relay's port, after those of the authority."""

    ports = ()

    def free_port(self):
        self.ports = (*self.ports, super().free_port())
        return self.taken if len(self.ports) == 3 else self.ports[-1]


def test_a_port_that_is_taken_meanwhile_is_no_reason_to_wait():
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        network = Unlucky(namespace=False)
        network.taken = somebody.getsockname()[1]
        with pytest.raises(Unavailable, match="tor relay0: publish: it has ended"), network:
            pass
    assert time.monotonic() - began < UP_S
    assert not network.directory.exists()


def test_the_second_consensus_comes_a_whole_interval_after_the_first(network):
    """Not at the clock's next half hour, which may be now: tors of both would number their descriptors differently."""
    (authority, *_) = network.daemons
    with authority.control() as control:
        first = datetime.fromisoformat(f"{control.get_info('consensus/valid-after')}+00:00").timestamp()
        ((_, offset_s),) = control.get_conf("TestingV3AuthVotingStartOffset")
    late_s = (int(offset_s) - first + VOTING_INTERVAL_S / 2) % VOTING_INTERVAL_S - VOTING_INTERVAL_S / 2
    assert abs(late_s) < UP_S


def test_nothing_leaves_the_network(network):
    if not network.is_isolated:
        pytest.skip("a network namespace takes root; without it the network is on this machine's loopback")
    with network.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with pytest.raises(OSError, match="unreachable"):
            probe.connect(("192.0.2.1", 9))


def test_a_block_inside_ends_outside(network):
    before = Path("/proc/thread-self/ns/net").readlink()
    with contextlib.suppress(ZeroDivisionError), network.inside():
        _ = 1 / 0
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_a_tor_joins_and_its_restart_keeps_its_place(network):
    joined = network.join("guest", "SocksPort 0")
    joined.stop()
    joined.start()
    joined.wait_bootstrapped(100, 60)
    joined.stop()
