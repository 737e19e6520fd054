"""LDK in a node process, driven by the JSON lines that ldk/peer.mjs speaks."""

import asyncio
import itertools
import json
import os

from chain_rpc import JsonRpc
from peers import CHANNEL_S, PAYMENT_S, START_S, Payment, PaymentFailed, Peer, PeerChannel
from processes import HERE, until

COMMAND_S = 30
EVENT_S = 30
ROUTE_S = 15
NO_ROUTE = "pay: 1"  # RetryableSendFailure::RouteNotFound: nothing was sent, and no payment is kept
SCRIPT = HERE / "ldk/peer.mjs"


class LdkFailed(Exception):  # noqa: N818 - the peer's answer
    """The peer answered a command with an error."""


class LdkPeer(Peer):
    """One LDK node. Options (fees, anchors, announced, port, ...) are those of ldk/peer.mjs, by their names there."""

    def __init__(
        self, chain: JsonRpc, name: str = "ldk", seed: bytes | None = None, **options: object
    ) -> None:
        super().__init__(chain, name)
        self.options = {"alias": name, "seed": (seed or os.urandom(32)).hex(), **options}
        self.events: list[dict] = []  # every event so far that nobody waited for
        self._changed = asyncio.Condition()
        self._answers: dict[int, asyncio.Future] = {}
        self._numbers = itertools.count(1)
        self._reading: asyncio.Task | None = None

    async def start(self) -> None:
        rpc = {"url": self.chain.url, "user": self.chain.user, "password": self.chain.password}
        await self.child.start("node", SCRIPT, json.dumps({**self.options, "rpc": rpc}), stdin=True)
        self._reading = asyncio.create_task(self._read())
        started = await self.event("started", timeout_s=START_S)
        self.node_id, self.port = started["node_id"], started["port"]

    async def stop(self) -> None:
        await self.child.end(lambda process: process.stdin.close())
        if self._reading:
            await self._reading

    async def do(self, command: str, timeout_s: float = COMMAND_S, **arguments: object) -> dict:
        """Any command of ldk/peer.mjs, by its name there."""
        self.child.check()
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "do": command, **arguments}) + "\n"
        self.child.process.stdin.write(line.encode())
        return await asyncio.wait_for(answer, timeout_s)

    async def event(self, name: str, timeout_s: float = EVENT_S, **fields: object) -> dict:
        """The oldest event of that name with those fields that nobody has taken yet; waits for it."""

        def take() -> dict | None:
            return next((e for e in self.events if matches(e, name, fields)), None)

        def settled() -> bool:
            return take() is not None or self._reading.done()

        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(settled)
        except TimeoutError:
            seen = [e for e in self.events if e["event"] != "block"]
            raise TimeoutError(
                f"{self.name}: no {name} {fields} within {timeout_s:g} s, only {seen}"
            ) from None
        if (event := take()) is None:
            raise RuntimeError(f"{self.name} ended: {self.child.log.read_text()[-2000:]}")
        self.events.remove(event)
        return event

    async def synced(self, height: int) -> None:
        async def there() -> bool:
            return (await self.do("sync"))["height"] >= height

        await until(there, EVENT_S, f"{self.name}: block {height}")

    async def connect(self, node_id: str, host: str, port: int) -> None:
        await self.do("connect", peer=node_id, host=host, port=port)

    async def disconnect(self, node_id: str) -> None:
        await self.do("disconnect", peer=node_id)

    async def open_channel(self, node_id: str, sat: int, push_msat: int = 0, **options: object) -> str:
        """`anchors`, `announced` and the other options may differ from the peer's own for this channel."""
        opened = await self.do("open", peer=node_id, sat=sat, push_msat=push_msat, **options)
        pending = asyncio.create_task(self.event("channel_pending", CHANNEL_S, **opened))
        closed = asyncio.create_task(
            self.event("channel_closed", CHANNEL_S, channel_id=opened["temporary_channel_id"])
        )
        done, waiting = await asyncio.wait((pending, closed), return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        first = done.pop().result()
        if first["event"] == "channel_closed":
            raise LdkFailed(f"open: {first['reason']} {first['detail']}")
        await self.event("broadcast", CHANNEL_S, txid=first["funding_txid"])
        return first["channel_id"]

    async def channels(self) -> list[PeerChannel]:
        return [channel(fields) for fields in (await self.do("channels"))["channels"]]

    async def invoice(self, amount_msat: int | None, description: str = "", **options: object) -> str:
        options["amount_msat"] = amount_msat
        return (await self.do("invoice", description=description, **options))["bolt11"]

    async def pay(self, bolt11: str, timeout_s: float = PAYMENT_S, **options: object) -> Payment:
        """Options: amount_msat (of an invoice without one), max_fee_msat, max_paths, retries."""
        return await self.outcome(await self._sent(bolt11=bolt11, **options), timeout_s)

    async def _sent(self, **options: object) -> dict:
        """Ask again while LDK finds no route: an HTLC that is being removed, or an update that it has not read yet."""

        async def begun() -> dict | None:
            try:
                return await self.do("pay", **options)
            except LdkFailed as error:
                if NO_ROUTE in str(error):
                    return None
                raise

        return await until(begun, ROUTE_S, f"{self.name}: a route")

    async def pay_route(self, bolt11: str, *paths: list[dict], timeout_s: float = PAYMENT_S) -> Payment:
        """Pay along exactly these paths, whatever they are worth; hops as `hop` makes them."""
        return await self.outcome(await self.do("pay_route", bolt11=bolt11, paths=list(paths)), timeout_s)

    async def keysend(self, node_id: str, amount_msat: int, timeout_s: float = PAYMENT_S) -> Payment:
        return await self.outcome(await self.do("keysend", peer=node_id, amount_msat=amount_msat), timeout_s)

    async def outcome(self, sent: dict, timeout_s: float = PAYMENT_S) -> Payment:
        """How a payment ends that `do("pay", ...)` and its like began."""
        payment_id = sent["payment_id"]

        def over(event: dict) -> bool:
            return event["event"] in ("payment_sent", "payment_failed") and event["payment_id"] == payment_id

        def is_over() -> bool:
            return any(over(e) for e in self.events) or self._reading.done()

        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(is_over)
        end = next(e for e in self.events if over(e))
        ours = [e for e in self.events if e.get("payment_id") == payment_id]
        self.events = [e for e in self.events if e not in ours]
        if end["event"] == "payment_failed":
            raise PaymentFailed(end["reason"], [e for e in ours if e["event"] == "payment_path_failed"])
        return Payment(end["payment_hash"], end["preimage"], end["fee_msat"])

    async def close(self, channel_id: str, *, force: bool = False) -> None:
        peer = next(c.node_id for c in await self.channels() if c.channel_id == channel_id)
        await self.do("force_close" if force else "close", channel_id=channel_id, peer=peer)

    async def graph(self) -> dict:
        """{"channels": [...], "nodes": [...]} as gossip taught it."""
        return await self.do("graph")

    async def hold(self, on: bool = True) -> None:
        """Leave incoming payments unanswered until `do("claim", payment_hash=...)` or `do("fail", ...)`."""
        await self.do("set", hold=on)

    async def _read(self) -> None:
        while line := await self.child.process.stdout.readline():
            message = json.loads(line)
            if "event" in message:
                self.events.append(message)
            else:
                self._settle(self._answers.pop(message["id"]), message)
            async with self._changed:
                self._changed.notify_all()
        for answer in self._answers.values():
            self._settle(answer, {"error": f"{self.name} ended"})
        async with self._changed:
            self._changed.notify_all()

    def _settle(self, answer: asyncio.Future, message: dict) -> None:
        if answer.done():
            return  # whoever asked has given up waiting
        if "error" in message:
            answer.set_exception(LdkFailed(message["error"]))
        else:
            answer.set_result(message["result"])


def matches(event: dict, name: str, fields: dict) -> bool:
    return event["event"] == name and all(event.get(key) == value for key, value in fields.items())


def hop(node_id: str, short_channel_id: int, fee_msat: int, cltv_expiry_delta: int) -> dict:
    """A hop of `pay_route`: fee and delta are for what comes behind it; the last one's are amount and final delta."""
    return {
        "node_id": node_id,
        "short_channel_id": str(short_channel_id),
        "fee_msat": fee_msat,
        "cltv_expiry_delta": cltv_expiry_delta,
    }


def channel(fields: dict) -> PeerChannel:
    scid = fields["short_channel_id"]
    return PeerChannel(
        channel_id=fields["channel_id"],
        node_id=fields["peer"],
        short_channel_id=int(scid) if scid else None,
        capacity_sat=fields["capacity_sat"],
        local_msat=fields["outbound_msat"],
        remote_msat=fields["inbound_msat"],
        usable=fields["usable"],
        state="usable" if fields["usable"] else "ready" if fields["ready"] else "pending",
        channel_type=fields["channel_type"] or "",
        announced=fields["announced"],
        funding=f"{fields['funding_txid']}:{fields['funding_output_index']}",
    )
