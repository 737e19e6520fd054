"""Who may come in: limits for one address, and this frontend's share of what the node will have.

Counted are connections from outside, from the first byte on. One IPv6 host has a whole /64 to itself, so that counts
as one address. Sans-IO: time is an argument.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from node.link.messages import Shares

MAX_TRACKED = 100_000  # addresses; beyond, the one that has been quiet for longest is forgotten
ADDRESS_BURST_S = 3.0  # an address may use up the seconds before
IPV6_SITE_BITS = 64
# What tor tells in a PROXY line with HiddenServiceExportCircuitID haproxy: the last 32 bits number the circuit.
TOR_CIRCUITS = ipaddress.IPv6Network("fc00:dead:beef:4dad::/64")
UNLIMITED = Shares(0, 1 << 31, 1 << 31, 1e9, 0.0)  # what holds until the backend says something else

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Networks:
    """A set of addresses, as configuration lists them."""

    def __init__(self, listed: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(each, strict=False) for each in listed]

    def __contains__(self, address: str) -> bool:
        """`address` with or without its port."""
        ip = _ip(address)
        return ip is not None and any(ip in network for network in self._networks)


class Bucket:
    """So much a second, unused seconds saved up to a limit. May be overdrawn once, and has to recover then."""

    __slots__ = ("_at_s", "level")

    def __init__(self, level: float, at_s: float) -> None:
        self.level = level
        self._at_s = at_s

    def refill(self, now_s: float, per_s: float, limit: float) -> float:
        self.level = min(limit, self.level + (now_s - self._at_s) * per_s)
        self._at_s = now_s
        return self.level


class _Source:
    """What comes from one address."""

    __slots__ = ("connections", "fresh", "handshakes")

    def __init__(self, fresh: Bucket) -> None:
        self.connections = 0
        self.handshakes = 0
        self.fresh = fresh


class Admission:
    """Mutable; one for the life of a frontend."""

    def __init__(self, exempt: Iterable[str], max_connections: int, now_s: float) -> None:
        self._exempt = Networks(exempt)
        self._max_connections = max_connections  # of this process, whatever its share
        self._shares = UNLIMITED
        self._fresh = Bucket(0.0, now_s)
        self._sources: dict[str, _Source] = {}
        self.connections = 0
        self.handshakes = 0
        self.refused: dict[str, int] = {}
        self.accepted = 0

    def share(self, shares: Shares) -> None:
        """From now on; UNLIMITED under a backend that has not spoken yet."""
        if self._shares is UNLIMITED:
            self._fresh.level = shares.connections_per_s
        self._shares = shares

    @property
    def shares(self) -> int:
        """The number of the shares that are in force."""
        return self._shares.number

    def enter(self, address: str, now_s: float) -> str:
        """Someone connected: "" and they count, or one word for why they have to go."""
        source = self._source(address, now_s)
        cause = self._of_node(now_s) or (self._of_source(source, now_s) if source else "")
        if cause:
            self.refused[cause] = self.refused.get(cause, 0) + 1
            return cause
        self.accepted += 1
        self.connections += 1
        self.handshakes += 1
        self._fresh.level -= 1
        if source is not None:
            source.connections += 1
            source.handshakes += 1
            source.fresh.level -= 1
        return ""

    def shaken(self, address: str) -> None:
        """Their handshake is through."""
        self.handshakes -= 1
        if source := self._sources.get(site(address)):
            source.handshakes -= 1

    def leave(self, address: str, *, shaking: bool) -> None:
        """They have gone; `shaking`: in the middle of their handshake."""
        if shaking:
            self.shaken(address)
        self.connections -= 1
        if source := self._sources.get(site(address)):
            source.connections -= 1

    def sweep(self, now_s: float) -> None:
        """Now and then: addresses that nobody comes from any more are forgotten."""
        per_s = self._shares.connections_per_s_per_address
        limit = per_s * ADDRESS_BURST_S
        for name, source in list(self._sources.items()):
            if not source.connections and source.fresh.refill(now_s, per_s, limit) >= limit:
                del self._sources[name]

    def _source(self, address: str, now_s: float) -> _Source | None:
        if address in self._exempt or _ip(address) is None:
            return None
        name = site(address)
        source = self._sources.pop(name, None)
        if source is None:
            limit = self._shares.connections_per_s_per_address * ADDRESS_BURST_S
            source = _Source(Bucket(limit, now_s))
            if len(self._sources) >= MAX_TRACKED:
                del self._sources[next(iter(self._sources))]
        self._sources[name] = source
        return source

    def _of_node(self, now_s: float) -> str:
        if self.connections >= self._max_connections:
            return "no_room"
        shares = self._shares
        if self.connections >= shares.connections:
            return "node_connections"
        if self.handshakes >= shares.handshakes:
            return "node_handshakes"
        if self._fresh.refill(now_s, shares.connections_per_s, shares.connections_per_s) < 1:
            return "node_connection_rate"
        return ""

    def _of_source(self, source: _Source, now_s: float) -> str:
        limits = self._shares
        if 0 < limits.connections_per_address <= source.connections:
            return "address_connections"
        if 0 < limits.handshakes_per_address <= source.handshakes:
            return "address_handshakes"
        per_s = limits.connections_per_s_per_address
        if per_s and source.fresh.refill(now_s, per_s, per_s * ADDRESS_BURST_S) < 1:
            return "address_connection_rate"
        return ""


class GossipBudget:
    """Bytes of answers to queries and filters: for each peer, over reconnections too, and for this frontend's share."""

    def __init__(self, now_s: float) -> None:
        self._shares = UNLIMITED
        self._share = Bucket(0.0, now_s)
        self._peers: dict[bytes, Bucket] = {}
        self.served = 0

    def share(self, shares: Shares) -> None:
        self._shares = shares

    @property
    def _per_s(self) -> int:
        return self._shares.gossip_bytes_per_s_per_peer

    @property
    def _burst(self) -> int:
        return self._shares.gossip_burst_per_peer

    def allows(self, node_id: bytes, now_s: float) -> bool:
        """Whether this peer may have more now."""
        per_s = self._shares.gossip_bytes_per_s
        if per_s and self._share.refill(now_s, per_s, per_s) < 0:
            return False
        bucket = self._peers.get(node_id)
        return bucket is None or not self._per_s or bucket.refill(now_s, self._per_s, self._burst) > 0

    def spend(self, node_id: bytes, size: int, now_s: float) -> None:
        self.served += size
        self._share.level -= size
        if not self._per_s:
            return
        bucket = self._peers.get(node_id)
        if bucket is None:
            if len(self._peers) >= MAX_TRACKED:
                del self._peers[next(iter(self._peers))]
            bucket = self._peers[node_id] = Bucket(self._burst, now_s)
        bucket.refill(now_s, self._per_s, self._burst)
        bucket.level -= size

    def sweep(self, now_s: float) -> None:
        """Now and then: who has not asked for long starts anew."""
        for node_id, bucket in list(self._peers.items()):
            if bucket.refill(now_s, self._per_s, self._burst) >= self._burst:
                del self._peers[node_id]


@lru_cache(maxsize=4_096)
def site(address: str) -> str:
    """What counts as one address: an IPv4 address, an IPv6 /64, a circuit of an onion service."""
    ip = _ip(address)
    if ip is None:
        return ""
    if ip.version == 4 or ip in TOR_CIRCUITS:
        return str(ip)
    return str(ipaddress.ip_network((ip, IPV6_SITE_BITS), strict=False).network_address)


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in "HOST:PORT", IPv4 also where it comes dressed up as IPv6; None for what is none."""
    host = address.rpartition(":")[0] if not address.endswith("]") and address.count(":") else address
    for each in (host, address):
        try:
            ip = ipaddress.ip_address(each.strip("[]").partition("%")[0])
        except ValueError:
            continue
        return (ip.ipv4_mapped or ip) if ip.version == 6 else ip
    return None
