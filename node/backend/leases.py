"""What the node will have of strangers, leased to frontends: a limit is one of the node, not of a process.

Once a beat each frontend's share of every limit is set anew: what it uses, and an equal part of what nobody uses. A
share of connections that shrinks counts as the larger one until the frontend's status confirms it, so that shares
never add up to more than the limit; only a frontend that has just come gets its equal part at once.
"""

from collections.abc import Mapping
from typing import Protocol

from msgspec.structs import replace

from node.link import frames
from node.link.messages import Shares, Status
from node.runtime.config import LimitsConfig

CAPABILITY = "shares"
MIN_RATE = 1.0  # a second: nobody is shut out for ever


class Link(Protocol):
    capabilities: tuple[str, ...]
    status: Status | None

    def write(self, frame: bytes) -> None: ...


class _Lease:
    """One frontend's; `ceilings` is what it may believe to have."""

    __slots__ = ("ceilings", "granted", "link", "number")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.number = 0
        self.granted = [0, 0]
        self.ceilings = [0, 0]

    def used(self) -> tuple[int, int]:
        status = self.link.status
        return (0, 0) if status is None else (status.handshakes, status.sessions)

    def confirm(self) -> None:
        if self.link.status is not None and self.link.status.shares == self.number:
            self.ceilings = list(self.granted)


class Leases:
    def __init__(self, config: LimitsConfig, links: Mapping[str, Link]) -> None:
        self._counts = (config.handshakes, config.connections)
        self._connections_per_s = float(config.connections_per_s)
        self._gossip_bytes_per_s = float(config.gossip_bytes_per_s)
        self._uniform = Shares(
            *(0, 0, 0, 0.0, 0.0),
            config.handshakes_per_address,
            config.connections_per_address,
            config.connections_per_s_per_address,
            config.gossip_bytes_per_s_per_peer,
            config.gossip_burst_per_peer,
        )
        self._links = links
        self._leases: dict[str, _Lease] = {}

    def beat(self) -> None:
        """Tell every frontend its shares."""
        links = {name: link for name, link in self._links.items() if CAPABILITY in link.capabilities}
        leases = {name: self._lease(name, link) for name, link in links.items()}
        self._leases = leases
        if not leases:
            return
        for lease in leases.values():
            lease.confirm()
        for which, limit in enumerate(self._counts):
            _divide(limit, which, list(leases.values()))
        fresh = _rates(
            self._connections_per_s,
            [each.link.status.connections_per_s if each.link.status else 0.0 for each in leases.values()],
        )
        gossip = _rates(
            self._gossip_bytes_per_s,
            [each.link.status.gossip_bytes_per_s if each.link.status else 0.0 for each in leases.values()],
        )
        for lease, connections_per_s, gossip_bytes_per_s in zip(leases.values(), fresh, gossip, strict=True):
            lease.number += 1
            handshakes, connections = lease.granted
            shares = replace(
                self._uniform,
                number=lease.number,
                handshakes=handshakes,
                connections=connections,
                connections_per_s=connections_per_s,
                gossip_bytes_per_s=gossip_bytes_per_s,
            )
            lease.link.write(frames.control(shares))

    def _lease(self, name: str, link: Link) -> _Lease:
        known = self._leases.get(name)
        return known if known is not None and known.link is link else _Lease(link)


def _divide(limit: int, which: int, leases: list[_Lease]) -> None:
    """Grant each its part of a limit on how many there are at a time."""
    used = [lease.used()[which] for lease in leases]
    held = [max(lease.ceilings[which], use) for lease, use in zip(leases, used, strict=True)]
    spare = max(0, limit - sum(used)) // len(leases)
    free = max(0, limit - sum(held))
    for lease, use in zip(leases, used, strict=True):
        wanted, ceiling = use + spare, lease.ceilings[which]
        if lease.number == 0:
            lease.granted[which] = lease.ceilings[which] = wanted
        elif wanted <= ceiling:
            lease.granted[which] = wanted
        else:
            growth = min(wanted - ceiling, free)
            free -= growth
            lease.granted[which] = lease.ceilings[which] = ceiling + growth


def _rates(limit: float, used: list[float]) -> list[float]:
    """Parts of a limit on how much there is a second."""
    total = sum(used)
    if total >= limit:
        return [max(MIN_RATE, limit * use / total) for use in used]
    return [use + (limit - total) / len(used) for use in used]
