"""Route finding: from our channels to a payee, in one part or several.

A search runs backwards from the payee over all edges at once, at the amount to be delivered; the path it proposes is
then walked with exact amounts, since fees compound. An edge that turns out too small is taken out and the search
repeated, which is rare. What an edge costs is its fee, the time it may lock the money up, and what failed attempts
are expected to cost, by what is believed of its balance.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from node.gossip.liquidity import Liquidity
from node.gossip.search import MAX_HOPS, Fault, Search, Step, profiles
from node.gossip.topology import Topology

MAX_EXPIRY_DELTA = 2016  # blocks: two weeks of locked money is what others accept too
MAX_PARTS = 64
MIN_PART_MSAT = 10_000  # below, a part's fees and slots cost more than it carries
MAX_SEARCHES = 48  # for one request, all parts together: some 0.3 s
LOCAL_RESERVE = 50  # one part in so many of a channel's balance is left for the fees of the next nodes


class Hop(Struct, frozen=True):
    """An HTLC over one channel, to the node at its far end."""

    node_id: bytes
    short_channel_id: int
    amount_msat: int
    expiry_delta: int  # blocks from the height at which the route is used; the payee's own at the last hop


Route = tuple[Hop, ...]


class LocalChannel(Struct, frozen=True):
    """A channel of ours that could take an HTLC now."""

    node_id: bytes  # of the peer
    short_channel_id: int  # as the first hop of a route is to name it
    spendable_msat: int
    htlc_minimum_msat: int = 0


class HintHop(Protocol):
    """A channel of an invoice's route hint, from `node_id` towards the payee."""

    @property
    def node_id(self) -> bytes: ...
    @property
    def short_channel_id(self) -> int: ...
    @property
    def fee_base_msat(self) -> int: ...
    @property
    def fee_proportional_millionths(self) -> int: ...
    @property
    def cltv_expiry_delta(self) -> int: ...


class Request(Struct, frozen=True, kw_only=True):
    """What is to be paid, and within which limits."""

    source: bytes  # our node id
    destination: bytes
    amount_msat: int
    max_fee_msat: int
    final_expiry_delta: int
    channels: tuple[LocalChannel, ...]
    max_parts: int = 1
    max_expiry_delta: int = MAX_EXPIRY_DELTA
    route_hints: Sequence[Sequence[HintHop]] = ()
    excluded_channels: Collection[tuple[int, int]] = frozenset()  # (short_channel_id, direction)
    excluded_nodes: Collection[bytes] = frozenset()


def find_routes(
    topology: Topology, liquidity: Liquidity, request: Request, now_s: float
) -> tuple[Route, ...]:
    """Routes whose parts add up to the amount, all limits kept; none where there is no such set."""
    if request.amount_msat <= 0 or request.destination == request.source:
        return ()
    finder = _Finder(topology, liquidity, request, now_s)
    if (whole := finder.find(request.amount_msat, request.max_fee_msat)) is not None:
        return (whole,)
    return finder.split() if request.max_parts > 1 else ()


def fee_msat(route: Route) -> int:
    return route[0].amount_msat - route[-1].amount_msat


class _Finder:
    """One request at work: what its parts so far have used up of balances and of the fee."""

    def __init__(self, topology: Topology, liquidity: Liquidity, request: Request, now_s: float) -> None:
        topology.refresh(now_s)
        self._request = request
        self._spendable = {c.short_channel_id: c.spendable_msat for c in _usable_channels(request)}
        self._channels = {c.short_channel_id: c for c in _usable_channels(request)}
        tails = _tails(request)
        self._search = Search(topology, liquidity.bounds(topology, now_s), request.destination, tails)
        self._search.exclude(request.source, request.excluded_nodes, request.excluded_channels)
        self._searches = 0

    def find(self, amount_msat: int, max_fee_msat: int) -> Route | None:
        """One route for this amount, by the first profile whose best route keeps the limits."""
        for profile in profiles(amount_msat, max_fee_msat, self._request.max_expiry_delta):
            banned: set[int] = set()
            while self._searches < MAX_SEARCHES:
                self._searches += 1
                starts = self._starts(amount_msat, banned)
                steps = self._search.best(amount_msat, profile, starts, banned)
                if steps is None:
                    return None
                route = _route(steps, amount_msat, self._request.final_expiry_delta)
                fault = self._check(steps, route, max_fee_msat)
                if fault is None:
                    self._search.reserve(steps, [hop.amount_msat for hop in route])
                    self._spendable[route[0].short_channel_id] -= route[0].amount_msat
                    return route
                if fault.edge is None:
                    break
                banned.add(fault.edge)
        return None

    def split(self) -> tuple[Route, ...]:
        """Part by part: halve what does not fit, go on with what is left."""
        request = self._request
        parts: list[Route] = []
        missing_msat, fee_left_msat = request.amount_msat, request.max_fee_msat
        size_msat = missing_msat // 2
        most = min(request.max_parts, MAX_PARTS)
        while missing_msat and len(parts) < most and self._searches < MAX_SEARCHES:
            if len(parts) == most - 1:
                size_msat = missing_msat
            part_msat = min(size_msat, missing_msat, self._largest_start())
            if part_msat < min(MIN_PART_MSAT, missing_msat):
                return ()
            share_msat = fee_left_msat * part_msat // missing_msat
            route = self.find(part_msat, share_msat)
            if route is None:
                if len(parts) == most - 1:
                    return ()
                size_msat = part_msat // 2
                continue
            parts.append(route)
            missing_msat -= part_msat
            fee_left_msat -= fee_msat(route)
        return tuple(parts) if not missing_msat else ()

    def _largest_start(self) -> int:
        largest = max(self._spendable.values(), default=0)
        return largest - largest // LOCAL_RESERVE

    def _starts(self, amount_msat: int, banned: Collection[int]) -> list[Step]:
        """Our channels that could carry the amount, fees not counted."""
        return [
            Step(channel.node_id, short_channel_id, edge=-short_channel_id - 1)
            for short_channel_id, channel in self._channels.items()
            if channel.htlc_minimum_msat <= amount_msat <= self._spendable[short_channel_id]
            and -short_channel_id - 1 not in banned
        ]

    def _check(self, steps: Sequence[Step], route: Route, max_fee_msat: int) -> Fault | None:
        first = route[0]
        if len(route) > MAX_HOPS:
            return Fault("hops")
        if first.amount_msat > self._spendable[first.short_channel_id]:
            return Fault("our channel", steps[0].edge)
        for step, hop in zip(steps[1:], route[1:], strict=True):
            if not self._search.fits(step, hop.amount_msat):
                return Fault("amount", step.edge)
        if fee_msat(route) > max_fee_msat:
            return Fault("fee")
        if first.expiry_delta > self._request.max_expiry_delta:
            return Fault("expiry")
        return None


def _route(steps: Sequence[Step], amount_msat: int, expiry_delta: int) -> Route:
    """Walk back from the payee: each node but the first asks its fee for what it sends on."""
    hops: list[Hop] = []
    for step in reversed(steps):
        hops.append(Hop(step.node_id, step.short_channel_id, amount_msat, expiry_delta))
        amount_msat += step.fee_msat(amount_msat)
        expiry_delta += step.expiry_delta
    return tuple(reversed(hops))


def _usable_channels(request: Request) -> list[LocalChannel]:
    return [
        channel
        for channel in request.channels
        if (channel.short_channel_id, int(request.source > channel.node_id)) not in request.excluded_channels
        and (channel.node_id not in request.excluded_nodes or channel.node_id == request.destination)
    ]


def _tails(request: Request) -> tuple[tuple[bytes, tuple[Step, ...]], ...]:
    """Route hints as (node where the hint begins, steps to the payee), those that exclusions leave."""
    tails = []
    for hint in request.route_hints:
        nodes = [hop.node_id for hop in hint] + [request.destination]
        pairs = list(zip(hint, nodes[1:], strict=True))
        barred = {request.source, request.destination, *request.excluded_nodes}
        channels = [(hop.short_channel_id, int(hop.node_id > target)) for hop, target in pairs]
        if (
            not hint
            or barred.intersection(nodes[:-1])
            or any(channel in request.excluded_channels for channel in channels)
        ):
            continue
        steps = tuple(
            Step(
                target,
                hop.short_channel_id,
                hop.fee_base_msat,
                hop.fee_proportional_millionths,
                hop.cltv_expiry_delta,
            )
            for hop, target in pairs
        )
        tails.append((hint[0].node_id, steps))
    return tuple(tails)
