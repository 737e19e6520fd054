"""Every node's channels and wallet at one moment, and what must be true between two such moments."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from lnsim.api_client import CallFailed, Node
from lnsim.cluster import wait_until
from lnsim.run.ledger import Ledger
from lnsim.scenario.workloads import HUB
from lnsim.stage import Chain

QUIET_TIMEOUT_S = 60.0
POLL_S = 0.2
PHASE_OPEN = "normal"
PHASE_CLOSING = "closing"  # the closing transaction is out, or on its way
PHASE_CLOSED = "closed"  # and deep enough
MAX_REORG = (
    100  # what a scenario may ask for: blocks that were there before the run and may hold others after it
)
MAX_ROUNDING_MSAT = 2_000  # of a channel that closes: whole satoshis go to each side's wallet

Channels = dict[str, list[dict[str, Any]]]  # by name of the node


class Books(Struct, frozen=True):
    """All of it at rest. `wallets_msat` is empty where nobody's wallet can be asked."""

    channels: Channels
    wallets_msat: dict[str, int]
    fees_sat: int = 0  # of all transactions in blocks that the run may have changed
    complaints: tuple[str, ...] = ()

    def wealth_msat(self, name: str) -> int:
        """What a node has: in its wallet, and on its side of channels that are open."""
        in_channels_msat = sum(int(c["local_msat"]) for c in self.channels[name] if _is_open(c))
        return self.wallets_msat.get(name, 0) + in_channels_msat


async def read(nodes: Mapping[str, Node], chain: Chain | None, ledger: Ledger) -> Books:
    """Wait (bounded) until no HTLC is left and all channels but those that the run closed are usable, then read."""
    found: Channels = {}
    closed = frozenset(ledger.closed)

    async def quiet() -> bool:
        try:
            answers = await asyncio.gather(*(node.call("channels") for node in nodes.values()))
        except CallFailed:
            return False  # a backend that was killed at the last moment is on its way back
        found.update(zip(nodes, answers, strict=True))
        if chain is not None and any(c["phase"] == PHASE_CLOSING for own in answers for c in own):
            await chain.mine(1)  # until it is deep: its fee counts once it is in a block
        return all(_at_rest(channel, closed) for channels in answers for channel in channels)

    complaints: tuple[str, ...] = ()
    try:
        await wait_until(quiet, QUIET_TIMEOUT_S, "all channels at rest", POLL_S)
    except CallFailed as failure:
        restless = [c["channel_id"][:8] for own in found.values() for c in own if not _at_rest(c, closed)]
        complaints = (f"{failure}: {', '.join(sorted(set(restless))) or 'a node does not answer'}",)
    if chain is None:
        return Books(found, {}, complaints=complaints)
    wallets_msat = {name: await chain.wallet_msat(name) for name in nodes}
    height = await chain.height()
    if ledger.first_block is None:
        ledger.first_block = max(0, height - MAX_REORG)
    return Books(found, wallets_msat, await chain.fees_sat(ledger.first_block, height), complaints)


def _at_rest(channel: dict[str, Any], closed: frozenset[str]) -> bool:
    if channel["channel_id"] in closed:
        return bool(channel["phase"] == PHASE_CLOSED)
    return bool(channel["usable"]) and not htlcs(channel)


def _is_open(channel: dict[str, Any]) -> bool:
    return bool(channel["phase"] == PHASE_OPEN)


def htlcs(channel: dict[str, Any]) -> int:
    return int(channel["offered"]) + int(channel["received"])


def open_channels(books: Books) -> set[tuple[str, str]]:
    return {(name, c["channel_id"]) for name, own in books.channels.items() for c in own if _is_open(c)}


def disagreements(channels: Channels) -> Iterator[str]:
    """Both ends of an open channel must tell the same story, and all of its capacity must be in it."""
    ends: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, own in channels.items():
        for channel in own:
            if _is_open(channel):
                ends.setdefault(channel["channel_id"], []).append((name, channel))
    for channel_id, both in ends.items():
        short = channel_id[:8]
        if len(both) == 1 and HUB in channels:  # a foreign node's end can't be asked for
            yield f"channel {short}: open at {both[0][0]} only"
        if len(both) == 2:
            (one, here), (other, there) = both
            if (here["local_msat"], here["remote_msat"]) != (there["remote_msat"], there["local_msat"]):
                yield f"channel {short}: {one} and {other} differ by msat"
        for name, end in both:
            in_flight_msat = end["offered_msat"] + end["received_msat"]
            if end["local_msat"] + end["remote_msat"] + in_flight_msat != end["capacity_sat"] * 1_000:
                yield f"channel {short}: at {name} its msat do not add up"


def unexplained(before: Books, after: Books, ledger: Ledger) -> Iterator[str]:
    """Whose wealth changed otherwise than by payments and on-chain fees."""
    fees_sat = after.fees_sat - before.fees_sat
    names = [name for name in before.channels if name in after.channels]
    change = Counter({name: after.wealth_msat(name) - before.wealth_msat(name) for name in names})
    odd = {name: change[name] - ledger.moved_msat[name] for name in names}
    closes = len(ledger.closed)
    rounding_msat = MAX_ROUNDING_MSAT * closes
    for name, msat in odd.items():
        on_chain = before.wallets_msat.get(name) != after.wallets_msat.get(name)
        lowest_msat = -(fees_sat * 1_000 + rounding_msat) if on_chain else 0
        if not lowest_msat <= msat <= 0:
            yield f"{name}: {msat:+,} msat that no payment explains"
    if HUB in names and before.wallets_msat:  # all ends are known: nothing may be missing in the sum either
        missing_msat = -sum(odd.values()) - fees_sat * 1_000
        if not 0 <= missing_msat <= rounding_msat:
            yield f"all together: {-missing_msat:+,} msat beside {fees_sat} sat of on-chain fees"
