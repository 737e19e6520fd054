"""Channels that come and go while the others are in use."""

import asyncio
from typing import Any

from lnsim.api_client import CallFailed
from lnsim.cluster import wait_until
from lnsim.run.context import Context
from lnsim.run.timing import ticks
from lnsim.scenario.workloads import ChannelChurn
from lnsim.stage import PeerNode

USABLE_TIMEOUT_S = 120.0  # from the funding transaction to the channel: some blocks
CLOSE_TIMEOUT_S = 60.0
PUSH_SHARE = 4  # a part of the capacity that the node under test gets
POLL_S = 0.5


class Churn:
    """Runs one `channel_churn` entry: open, wait until usable, leave it open for a while, close."""

    def __init__(self, context: Context, spec: ChannelChurn, number: int) -> None:
        self._context = context
        self._recorder = context.stage.recorder
        self._spec = spec
        self._draw = context.draw(number, "who opens")
        for figure in ("opened", "not_opened", "never_usable", "closed"):
            self._recorder.count(f"channels.{figure}", 0)  # told also where there is none

    async def run(self) -> None:
        context, spec = self._context, self._spec
        await context.clock.until(spec.start_s)
        nodes = list(context.whole(spec.group))
        async for _ in ticks(context.clock, spec.rate_per_s, 0.0, context.end_s(spec), self._draw):
            context.background.begin(self._one(self._draw.choice(nodes)), "channel churn")

    async def _one(self, node: PeerNode) -> None:
        ledger, spec = self._context.ledger, self._spec
        capacity_sat = spec.capacity_sat
        try:
            made = await node.call(
                "open",
                node_id=self._context.stage.hub_id,
                funding_sat=capacity_sat,
                push_msat=capacity_sat * 1_000 // PUSH_SHARE,
                announce=False,
            )
        except CallFailed as error:
            self._recorder.count("channels.not_opened")
            self._recorder.count(f"failures.open: {error}")
            return
        channel_id = made["channel_id"]
        ledger.opened.add(channel_id)
        ledger.pushed(node.name, capacity_sat * 1_000 // PUSH_SHARE)
        self._recorder.count("channels.opened")
        try:
            await wait_until(lambda: self._usable(node, channel_id), USABLE_TIMEOUT_S, "usable", POLL_S)
        except CallFailed:
            self._recorder.count("channels.never_usable")
            return
        await asyncio.sleep(spec.open_for_s)
        await self._close(node, channel_id)

    async def _close(self, node: PeerNode, channel_id: str) -> None:
        """Again until it took: the link may be down just then."""

        async def asked() -> bool:
            try:
                await node.call("close", channel_id=channel_id)
            except CallFailed as error:
                return "no channel" in str(error)
            return True

        self._context.ledger.closed.add(channel_id)
        try:
            await wait_until(asked, CLOSE_TIMEOUT_S, "closed", POLL_S)
        except CallFailed as error:
            self._recorder.count(f"failures.close: {error}")
        else:
            self._recorder.count("channels.closed")

    async def _usable(self, node: PeerNode, channel_id: str) -> bool:
        found = await _channel(node, channel_id)
        return bool(found and found["usable"])


async def _channel(node: PeerNode, channel_id: str) -> dict[str, Any] | None:
    channels = await node.call("channels")
    return next((channel for channel in channels if channel["channel_id"] == channel_id), None)
