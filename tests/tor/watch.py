"""Sees whatever would leave a network namespace: its only way out is an interface that leads nowhere."""

import ipaddress
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

EXIT, NOWHERE = "exit0", "nowhere0"
EVERYTHING = 0x0003  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING, <linux/if_packet.h>
RESOLVERS = Path("/etc/resolv.conf")


class Leak(NamedTuple):
    """A packet that wanted out: the number of its protocol in IP, and where it wanted to go."""

    protocol: int
    to: str


class Watch:
    """Made and used inside the namespace; `close` takes the way out away again."""

    def __init__(self) -> None:
        for command in (
            f"link add {EXIT} type veth peer name {NOWHERE}",
            f"link set {NOWHERE} up",
            f"link set {EXIT} arp off up",  # or every packet would wait for a neighbour's answer
            f"address add 192.0.2.1/24 dev {EXIT}",
            f"address add 2001:db8:1::1/64 dev {EXIT} nodad",
            f"route add default dev {EXIT}",
            f"-6 route add default dev {EXIT}",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING))
        self._packets.bind((EXIT, 0))
        self._packets.setblocking(False)
        self._resolvers = [_listen(each) for each in _near_resolvers()]

    def leaks(self) -> list[Leak]:
        """What wanted out since it was last asked."""
        found = []
        with suppress(BlockingIOError):
            while True:
                packet, (_, _, direction, *_) = self._packets.recvfrom(2_048)
                leak = _leak(packet)
                if direction == OUTGOING and leak is not None:
                    found.append(leak)
        for each in self._resolvers:
            with suppress(BlockingIOError):
                while each.recvfrom(2_048):
                    found.append(Leak(socket.IPPROTO_UDP, each.getsockname()[0]))
        return found

    def close(self) -> None:
        for each in (self._packets, *self._resolvers):
            each.close()
        subprocess.run(["ip", "link", "delete", EXIT], check=True)


def _leak(packet: bytes) -> Leak | None:
    """None for what the kernel says to its neighbours by itself: multicast of IPv6."""
    if packet[0] >> 4 == 4:
        return Leak(packet[9], str(ipaddress.ip_address(packet[16:20])))
    to = ipaddress.ip_address(packet[24:40])
    return None if to.is_multicast else Leak(packet[6], str(to))


def _near_resolvers() -> list[str]:
    """This machine's DNS servers that are on loopback: a question to them would not go out."""
    lines = [line.split() for line in RESOLVERS.read_text().splitlines()] if RESOLVERS.exists() else []
    named = [line[1] for line in lines if len(line) > 1 and line[0] == "nameserver"] or ["127.0.0.1"]
    return [each for each in named if ipaddress.ip_address(each.partition("%")[0]).is_loopback]


def _listen(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind((address, 53))
    listening.setblocking(False)
    return listening


def require_watch(network) -> None:
    """Go on only where the network is in a namespace of its own: a user's run skips with the reason, CI fails."""
    if not network.is_isolated or not shutil.which("ip"):
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("what leaves can't be watched: it takes root, and iproute2's ip")
