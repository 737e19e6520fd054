"""The invariants of a run, measured: nothing pending, nothing lost, nothing closed, both ends of a channel agree."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from lnsim.api_client import CallFailed, Node
from lnsim.cluster import wait_until

QUIET_TIMEOUT_S = 20.0
PHASE_OPEN = "normal"

Channels = dict[str, list[dict[str, Any]]]  # by name of the node


class Books(Struct, frozen=True):
    """Every node's channels at one moment, all of them at rest."""

    channels: Channels
    complaints: tuple[str, ...] = ()

    def balances_msat(self) -> Counter[str]:
        return Counter(
            {name: sum(c["local_msat"] for c in channels) for name, channels in self.channels.items()}
        )


class Verdict(Struct, frozen=True):
    msat_conserved: bool
    htlcs_lost: int
    channels_closed: int
    complaints: tuple[str, ...]


async def books(nodes: Mapping[str, Node], among: Books | None = None) -> Books:
    """Wait (bounded) until no HTLC is left anywhere, then read all channels, or those that are `among` others."""
    known = None if among is None else {c["channel_id"] for own in among.channels.values() for c in own}
    found: Channels = {}

    async def quiet() -> bool:
        try:
            answers = await asyncio.gather(*(node.call("channels") for node in nodes.values()))
        except CallFailed:
            return False  # a backend that was killed at the last moment is on its way back
        for name, channels in zip(nodes, answers, strict=True):
            found[name] = [c for c in channels if known is None or c["channel_id"] in known]
        return not any(_htlcs(c) or not c["usable"] for channels in found.values() for c in channels)

    try:
        await wait_until(quiet, QUIET_TIMEOUT_S, "all channels at rest")
    except CallFailed as failure:
        return Books(found, (str(failure),))
    return Books(found)


def verdict(before: Books, after: Books, expected_msat: Mapping[str, int] | None) -> Verdict:
    """`expected_msat`: what settled payments did to each node's balance; None where others paid through us too."""
    complaints = [*after.complaints, *_disagreements(after.channels)]
    gone = _normal(before.channels) - _normal(after.channels)
    complaints += [f"{name}: channel {channel_id[:8]} is no longer open" for name, channel_id in sorted(gone)]
    if expected_msat is not None:
        complaints += _unexplained(before.balances_msat(), after.balances_msat(), expected_msat)
    htlcs = {c["channel_id"]: _htlcs(c) for channels in after.channels.values() for c in channels}
    complaints += [f"channel {key[:8]}: {count} HTLCs left" for key, count in htlcs.items() if count]
    conserved = not any("msat" in complaint for complaint in complaints)
    return Verdict(
        conserved, sum(htlcs.values()), len({channel_id for _, channel_id in gone}), tuple(complaints)
    )


def _unexplained(then: Counter[str], now: Counter[str], expected_msat: Mapping[str, int]) -> list[str]:
    differences = {name: now[name] - then[name] - expected_msat.get(name, 0) for name in then}
    return [f"{name}: {msat:+} msat that no payment explains" for name, msat in differences.items() if msat]


def _disagreements(channels: Channels) -> list[str]:
    """Both ends of a channel must tell the same story, and all of its capacity must be in it."""
    ends: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, own in channels.items():
        for channel in own:
            ends.setdefault(channel["channel_id"], []).append((name, channel))
    complaints = []
    for channel_id, both in ends.items():
        if len(both) != 2:
            complaints.append(
                f"channel {channel_id[:8]}: known to {both[0][0]} only, its msat count for nobody"
            )
            continue
        (one, here), (other, there) = both
        if (here["local_msat"], here["remote_msat"]) != (there["remote_msat"], there["local_msat"]):
            complaints.append(f"channel {channel_id[:8]}: {one} and {other} differ by msat")
        for name, end in both:
            in_flight_msat = end["offered_msat"] + end["received_msat"]
            if end["local_msat"] + end["remote_msat"] + in_flight_msat != end["capacity_sat"] * 1_000:
                complaints.append(f"channel {channel_id[:8]}: at {name} its msat do not add up")
    return complaints


def _htlcs(channel: dict[str, Any]) -> int:
    count: int = channel["offered"] + channel["received"]
    return count


def _normal(channels: Channels) -> set[tuple[str, str]]:
    return {
        (name, channel["channel_id"])
        for name, own in channels.items()
        for channel in own
        if channel["phase"].lower() == PHASE_OPEN
    }
