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


async def books(nodes: Mapping[str, Node]) -> Books:
    """Wait (bounded) until no HTLC is left anywhere, then read all channels."""
    found: Channels = {}

    async def quiet() -> bool:
        answers = await asyncio.gather(*(node.call("channels") for node in nodes.values()))
        found.update(zip(nodes, answers, strict=True))
        return not any(_htlcs(c) or not c["usable"] for channels in answers for c in channels)

    try:
        await wait_until(quiet, QUIET_TIMEOUT_S, "all channels at rest")
    except CallFailed as failure:
        return Books(found, (str(failure),))
    return Books(found)


def verdict(before: Books, after: Books, expected_msat: Mapping[str, int]) -> Verdict:
    """`expected_msat`: what the payments known to have settled did to each node's balance."""
    complaints = [*after.complaints, *_disagreements(after.channels, _ids(before.channels))]
    gone = _normal(before.channels) - _normal(after.channels)
    complaints += [f"{name}: channel {channel_id[:8]} is no longer open" for name, channel_id in sorted(gone)]
    then, now = before.balances_msat(), after.balances_msat()
    guests = _ids(after.channels) - _ids(before.channels)  # their payments are in nobody's plan
    for name in now if not guests else ():
        difference_msat = now[name] - then[name] - expected_msat.get(name, 0)
        if difference_msat:
            complaints.append(f"{name}: {difference_msat:+} msat that no payment explains")
    htlcs = {c["channel_id"]: _htlcs(c) for channels in after.channels.values() for c in channels}
    complaints += [f"channel {key[:8]}: {count} HTLCs left" for key, count in htlcs.items() if count]
    conserved = not any("msat" in complaint for complaint in complaints)
    return Verdict(
        conserved, sum(htlcs.values()), len({channel_id for _, channel_id in gone}), tuple(complaints)
    )


def _disagreements(channels: Channels, known: set[str]) -> list[str]:
    """Both ends of a channel must tell the same story, and all of its capacity must be in it."""
    ends: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, own in channels.items():
        for channel in own:
            if channel["channel_id"] in known:
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


def _ids(channels: Channels) -> set[str]:
    return {channel["channel_id"] for own in channels.values() for channel in own}


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
