"""Payments between LDK and the node, both ways, for as long as a test breaks something; and the books of both sides."""

import asyncio
import contextlib

from deployed import FRONT_DOOR, Deployed
from ldk_peer import LdkFailed, LdkPeer
from msgspec import Struct
from peers import PaymentFailed
from processes import until

from lnsim.api_client import CallFailed

AMOUNT_MSAT = 100_000
REST_S = 60
SETTLE_S = 60
ANSWER_S = 5.0  # a leader that fell silent answers nobody: then another one is asked
PAUSE_S = 0.1  # a peer asks again after so long


class Books(Struct, frozen=True):
    """Both ends of the one channel, at rest, and what each says about payments; `ldk_msat` is without the reserve."""

    ldk_msat: int
    ldk_total_msat: int
    ours_msat: int
    ours_total_msat: int
    we_paid_msat: int
    we_received_msat: int  # of what LDK says that it paid


class Traffic:
    """LDK stays connected as peers do: whoever has lost its connection dials the balancer again."""

    def __init__(self, site: Deployed, ldk: LdkPeer) -> None:
        self.site, self.ldk = site, ldk
        self.settled, self.failed = 0, 0
        self.sent_by_ldk: list[str] = []  # hashes of what it paid, as its own events say
        self.leaving = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self):
        """Payments both ways meanwhile; each comes to its end before this does."""
        going = asyncio.Event()
        tasks = [asyncio.create_task(pays(going)) for pays in (self._ldk_pays, self._we_pay)]
        try:
            await self.settle(4)
            yield self
            await self.settle(4)
        finally:
            going.set()
            await asyncio.gather(*tasks)

    async def settle(self, more: int) -> None:
        """Until that many payments more have settled."""
        wanted = self.settled + more

        async def enough() -> bool:
            return self.settled >= wanted

        await until(enough, SETTLE_S, f"{more} payments more than {self.settled}")

    async def _ldk_pays(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                paid = await self.ldk.keysend(self.site.node_id, AMOUNT_MSAT)
            except (PaymentFailed, LdkFailed):  # no connection just now
                self.failed += 1
                await _pause(over)
            else:
                self.sent_by_ldk.append(paid.payment_hash)
                self.settled += 1

    async def _we_pay(self, over: asyncio.Event) -> None:
        target = self.ldk.node_id
        while not over.is_set():
            try:
                async with asyncio.timeout(ANSWER_S):
                    sent = await self.site.api.call("keysend", node_id=target, amount_msat=AMOUNT_MSAT)
            except (CallFailed, TimeoutError):  # no backend just now: the books tell what became of it
                sent = {"status": "unknown"}
            if sent["status"] == "settled":
                self.settled += 1
            else:
                self.failed += 1
                await _pause(over)

    async def stay(self) -> None:
        """Connected, until it is to leave."""
        while not self.leaving.is_set():
            with contextlib.suppress(LdkFailed):  # nobody is ready just now
                await self.ldk.connect(self.site.node_id, *FRONT_DOOR)
            await _pause(self.leaving)

    async def books(self) -> Books:
        """Once neither side has anything in flight."""
        taken: list[Books] = []

        async def at_rest() -> bool:
            try:
                (ours,) = await self.site.api.call("channels")
                (theirs,) = await self.ldk.channels()
                paid = await self.site.api.call("payments")
                received = [
                    await self.site.api.call("received", payment_hash=each) for each in self.sent_by_ldk
                ]
            except CallFailed:
                return False
            if ours["offered"] or ours["received"] or not ours["usable"] or not theirs.usable:
                return False
            taken[:] = [
                Books(
                    theirs.local_msat,
                    theirs.local_msat + theirs.remote_msat,
                    ours["local_msat"],
                    ours["local_msat"] + ours["remote_msat"],
                    sum(each["amount_msat"] for each in paid if each["status"] == "settled"),
                    sum(each["received_msat"] for each in received),
                )
            ]
            return ours["local_msat"] + ours["remote_msat"] == 1_000 * ours["capacity_sat"]

        await until(at_rest, REST_S, "both ends at rest")
        return taken[0]

    @property
    def ldk_sent_msat(self) -> int:
        return AMOUNT_MSAT * len(self.sent_by_ldk)

    @property
    def ldk_received_msat(self) -> int:
        return sum(each["amount_msat"] for each in self.ldk.events if each["event"] == "payment_claimed")

    async def frontend(self) -> str | None:
        """Where LDK's session is."""
        for each in await self.site.api.call("peers"):
            if each["node_id"] == self.ldk.node_id and each["connected"]:
                return each["frontend"]
        return None


async def _pause(over: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), PAUSE_S)
