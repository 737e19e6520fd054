"""What must be true of every run, whatever happened in it."""

import asyncio
from collections.abc import Iterator
from typing import Any

from lnsim.api_client import CallFailed
from lnsim.cluster import wait_until
from lnsim.report.result import Check
from lnsim.run.books import Books, disagreements, htlcs, open_channels, unexplained
from lnsim.run.ledger import Ledger
from lnsim.stage import Stage

CONVERGE_TIMEOUT_S = 30.0
POLL_S = 0.5
MAX_COMPLAINTS = 20

Found = tuple[str, list[str]]


async def check(
    stage: Stage, ledger: Ledger, before: Books, after: Books, given_up: int
) -> tuple[list[Check], list[str]]:
    """Each invariant with whether it held, and in words what did not."""
    found: list[Found] = [
        ("every msat accounted for", list(_money(before, after, ledger))),
        ("both ends of every channel agree", list(disagreements(after.channels))),
        ("no HTLC left over, no payment without an end", list(_pending(after, given_up))),
        ("no channel closed that nobody asked to close", list(_closed(before, after, ledger))),
        ("graphs agree", await _graphs(stage)),
    ]
    complaints = [complaint for _, complaints in found for complaint in complaints]
    return [Check(text, not complaints) for text, complaints in found], complaints[:MAX_COMPLAINTS]


def _money(before: Books, after: Books, ledger: Ledger) -> Iterator[str]:
    if after.complaints:
        yield "balances are not at rest, so nothing is known of them"
    else:
        yield from unexplained(before, after, ledger)


def _pending(after: Books, given_up: int) -> Iterator[str]:
    yield from after.complaints
    counts = {c["channel_id"]: htlcs(c) for channels in after.channels.values() for c in channels}
    for channel_id, count in counts.items():
        if count:
            yield f"channel {channel_id[:8]}: {count} HTLCs left"
    if given_up:
        yield f"{given_up} calls never ended"


def _closed(before: Books, after: Books, ledger: Ledger) -> Iterator[str]:
    for name, channel_id in sorted(open_channels(before) - open_channels(after)):
        if channel_id not in ledger.closed:
            yield f"{name}: channel {channel_id[:8]} is no longer open"


async def _graphs(stage: Stage) -> list[str]:
    """Every frontend's copy is the backend's; every peer that is a node knows as many channels."""
    if stage.hub is None:
        return []
    hub = stage.hub
    nodes = [node for group in stage.groups.values() for node in group.nodes]
    seen: dict[str, Any] = {}

    async def agree() -> bool:
        try:
            own, *others = await asyncio.gather(
                hub.call("getinfo"), *(node.call("getinfo") for node in nodes)
            )
        except CallFailed:
            return False
        copies = {each["id"]: each["graph_sequence"] for each in own["frontends"]}
        counts = {info["alias"]: info["graph"]["channels"] for info in others}
        wanted = own["graph"]["channels"]
        seen.clear()
        seen.update({name: at for name, at in copies.items() if at != own["graph"]["sequence"]})
        if stage.scenario.topology.graph is None:
            seen.update({name: count for name, count in counts.items() if count != wanted})
        missing = set(stage.frontends) - set(copies)
        seen.update(dict.fromkeys(missing, "no link"))
        return not seen

    try:
        await wait_until(agree, CONVERGE_TIMEOUT_S, "graphs agree", POLL_S)
    except CallFailed as failure:
        return [f"{failure}: {', '.join(f'{name} ({at})' for name, at in sorted(seen.items()))}"]
    return []
