"""A port that a test was given is its own, whatever else on this machine asks for one."""

import socket
from pathlib import Path

import pytest
from ports import HOST, free_port

from lnsim.cluster import ReservedPort
from tor.namespace import Namespace

FEW = 20  # ports that the kernel gives out in the namespace below: all of them are asked for
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.fixture
def few_ports():
    try:
        namespace = Namespace()
    except OSError:
        pytest.skip("a network namespace takes root")
    with namespace.inside():
        RANGE.write_text(f"40000 {40000 + FEW - 1}")
        yield
    namespace.close()


def all_that_are_left(*options):
    """Every port that the kernel still gives out."""
    asked = []
    try:
        while True:
            asked.append(socket.socket())
            for option in options:
                asked[-1].setsockopt(socket.SOL_SOCKET, option, 1)
            asked[-1].bind((HOST, 0))
    except OSError:
        return [each.getsockname()[1] for each in asked[:-1]]
    finally:
        for each in asked:
            each.close()


@pytest.fixture(params=["tests", "lnsim"])
def ours(request, few_ports):
    if request.param == "tests":
        yield free_port()
    else:
        reserved = ReservedPort(HOST)
        yield reserved.number
        reserved.close()


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)])
def test_a_port_is_given_to_nobody_else_and_can_be_listened_on_twice(ours, options):
    assert sorted([ours, *all_that_are_left(*options)]) == [*range(40000, 40000 + FEW)]
    for _ in range(2):  # a server, and the same server after its restart
        with socket.create_server((HOST, ours)), socket.create_connection((HOST, ours)):
            pass
