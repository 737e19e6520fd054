"""Payments of ours: each is a `node.payment.send.Payment`, stored with the HTLCs that its parts become."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol, assert_never

import msgspec

from node.backend.channels import Channels
from node.backend.htlcs import INTERNAL, Htlcs
from node.backend.journal import Journal
from node.backend.store import Parameters, Store, put
from node.channel import effects as fx
from node.channel import events as ev
from node.errors import Refused
from node.payment import send
from node.payment.blame import Observation
from node.payment.htlc import HtlcKey
from node.payment.route import Route
from node.runtime import logs
from node.runtime.runtime import Runtime

PUT, PUT_PART = put("payments"), put("payment_parts")
PARTS = "SELECT out_channel, out_id, payment_hash, part_id FROM payment_parts"
MAX_RUNNING = 10_000  # payments under way at once
MAX_ENDED_KEPT = 1_000  # of which it is known without a look into the database that they were paid

log = logs.get("send")


class Result(NamedTuple):
    """How a payment ended."""

    preimage: bytes | None
    fee_msat: int
    reason: str


class Pathfinder(Protocol):
    """Finds routes, and learns from what became of them."""

    def free_slots(self) -> list[int]:
        """Of each usable channel."""
        ...

    def find(self, request: send.FindRoutes) -> tuple[Route, ...] | str: ...
    def learn(self, observations: tuple[Observation, ...]) -> None: ...
    def channel_update(self, raw: bytes) -> None: ...


class Outgoing:
    """A payment's place in the backend."""

    __slots__ = ("_turns", "done", "payment", "started_s")

    def __init__(self, payment: send.Payment, started_s: float, turns: Iterator[int]) -> None:
        self.payment = payment
        self._turns = turns  # what was written last has the highest
        self.started_s = started_s
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def statement(self) -> tuple[str, Parameters]:
        payment = self.payment
        data = msgspec.msgpack.encode(payment)
        return PUT, (payment.payment_hash, int(payment.is_running), data, next(self._turns))


class Sending:
    """Implements `htlcs.Payer`."""

    def __init__(
        self, runtime: Runtime, journal: Journal, channels: Channels, htlcs: Htlcs, pathfinder: Pathfinder
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._htlcs = htlcs
        self._pathfinder = pathfinder
        self.channel_of: Callable[[int], bytes | None]
        self._running: dict[bytes, Outgoing] = {}
        self._ended: dict[bytes, send.Payment] = {}
        self._asked: set[bytes] = set()  # hashes about to begin
        self._parts: dict[HtlcKey, tuple[Outgoing, int]] = {}
        self._store: Store
        self._turns: Iterator[int] = count(1)
        # searches that found nothing while a channel of ours had no slot: tried again once one is free
        self._waiting: deque[tuple[Outgoing, send.FindRoutes]] = deque()
        self.settled = 0
        self.failed = 0
        self.resting = False  # the backend stops: payments that run go on in its next life
        journal.after_commit(self._find_again)

    def load(self, store: Store) -> None:
        """Take up what was under way; `resume` goes on with it."""
        self._store = store
        for (newest,) in store.rows("SELECT turn FROM payments ORDER BY turn DESC LIMIT 1"):
            assert isinstance(newest, int)
            self._turns = count(newest + 1)
        for (data,) in store.rows("SELECT data FROM payments WHERE running = 1"):
            assert isinstance(data, bytes)
            payment = msgspec.msgpack.decode(data, type=send.Payment)
            self._running[payment.payment_hash] = Outgoing(payment, self._runtime.now(), self._turns)
        for channel_id, htlc_id, payment_hash, part_id in store.rows(PARTS):
            assert isinstance(channel_id, bytes)
            assert isinstance(htlc_id, int)
            assert isinstance(payment_hash, bytes)
            assert isinstance(part_id, int)
            if outgoing := self._running.get(payment_hash):
                self._parts[HtlcKey(channel_id, True, htlc_id)] = (outgoing, part_id)

    def resume(self) -> None:
        """After the channels have resumed: parts without an HTLC were never sent; then on with every payment."""
        for outgoing in list(self._running.values()):
            alive = {part_id for owner, part_id in self._parts.values() if owner is outgoing}
            for part in outgoing.payment.parts:
                if part.part_id not in alive:
                    lost = send.PartFailed(part.part_id, send.LocalRefusal("restart"), self._runtime.now())
                    self._advance(outgoing, lost)
            self._advance(outgoing, send.Start(self._runtime.now()))

    async def pay(self, payment: send.Payment) -> tuple[send.Payment, Result]:
        """Run a payment to its end. Raises Refused where it must not even begin."""
        payment_hash = payment.payment_hash
        if payment_hash in self._running or payment_hash in self._asked:
            raise Refused("this payment is under way")
        self._asked.add(payment_hash)  # while the database is read, nobody else may begin it
        try:
            if payment.keysend_preimage is None and await self._is_settled(payment_hash):
                raise Refused("this has been paid already")
        finally:
            self._asked.discard(payment_hash)
        if len(self._running) >= MAX_RUNNING:
            raise Refused("too many payments are under way")
        outgoing = Outgoing(payment, self._runtime.now(), self._turns)
        self._running[payment_hash] = outgoing
        self._advance(outgoing, send.Start(self._runtime.now()))
        result = await outgoing.done
        return outgoing.payment, result

    async def _is_settled(self, payment_hash: bytes) -> bool:
        """Whether this hash was paid before, however long ago: no invoice is paid twice."""
        known = self._ended.get(payment_hash)
        if known is None:
            query = partial(
                self._store.rows, "SELECT data FROM payments WHERE payment_hash = ?", (payment_hash,)
            )
            rows = await self._runtime.run_blocking("store", query)
            if not rows:
                return False
            data = rows[0][0]
            assert isinstance(data, bytes)
            known = msgspec.msgpack.decode(data, type=send.Payment)
        return known.phase is send.Phase.SETTLED

    @property
    def pending(self) -> int:
        return len(self._running)

    async def payments(self, count: int) -> list[send.Payment]:
        """The newest, whatever became of them and however often we were restarted since."""
        await self._journal.settled()
        newest = "SELECT data FROM payments ORDER BY turn DESC LIMIT ?"
        rows = await self._runtime.run_blocking("store", partial(self._store.rows, newest, (count,)))
        return [
            msgspec.msgpack.decode(data, type=send.Payment) for (data,) in rows if isinstance(data, bytes)
        ]

    def sweep(self) -> None:
        """Once a second: deadlines."""
        timeout = send.Timeout(self._runtime.now())
        for outgoing in list(self._running.values()):
            if outgoing.payment.deadline_s <= timeout.now_s and not outgoing.payment.giving_up:
                self._advance(outgoing, timeout)

    # HTLCs

    def part_fulfilled(self, key: HtlcKey, preimage: bytes) -> bool:
        found = self._take(key)
        if found is not None:
            self._advance(found[0], send.PartFulfilled(found[1], preimage))
        return found is not None

    def part_failed(self, key: HtlcKey, effect: fx.HtlcFailed | fx.HtlcMalformed | fx.HtlcDropped) -> bool:
        found = self._take(key)
        if found is None:
            return False
        failure: send.ReturnPacket | send.MalformedOnion | send.LocalRefusal
        match effect:
            case fx.HtlcFailed(_, reason):
                failure = send.ReturnPacket(reason)
            case fx.HtlcMalformed(_, _, code):
                failure = send.MalformedOnion(code)
            case fx.HtlcDropped():
                failure = send.LocalRefusal("the connection was lost")
            case _:
                assert_never(effect)
        self._advance(found[0], send.PartFailed(found[1], failure, self._runtime.now()))
        return True

    def _take(self, key: HtlcKey) -> tuple[Outgoing, int] | None:
        found = self._parts.pop(key, None)
        if found is not None:
            self._journal.write(
                "DELETE FROM payment_parts WHERE out_channel = ? AND out_id = ?", key.channel_id, key.htlc_id
            )
        return found

    # steps

    def _advance(self, outgoing: Outgoing, event: send.Event) -> None:
        outgoing.payment, effects = send.step(outgoing.payment, event)
        self._journal.store(outgoing)
        for effect in effects:
            self._run(outgoing, effect)
        payment = outgoing.payment
        if not payment.is_running:
            self._running.pop(payment.payment_hash, None)
            self._ended[payment.payment_hash] = payment
            if len(self._ended) > MAX_ENDED_KEPT:
                del self._ended[next(iter(self._ended))]

    def _run(self, outgoing: Outgoing, effect: send.Effect) -> None:
        match effect:
            case send.FindRoutes():
                self._find(outgoing, effect)
            case send.SendPart():
                self._send(outgoing, effect)
            case send.Learn(observations):
                self._pathfinder.learn(observations)
            case send.UpdateChannel(raw):
                self._pathfinder.channel_update(raw)
            case send.Report(send.Settled(preimage, fee_msat)):
                self.settled += 1
                self._journal.reply(partial(_finish, outgoing.done, Result(preimage, fee_msat, "")))
            case send.Report(send.Failed(reason)):
                self.failed += 1
                self._journal.reply(partial(_finish, outgoing.done, Result(None, 0, reason)))
            case send.Report():
                raise AssertionError("a payment settles or fails")
            case _:
                assert_never(effect)

    def _find_again(self) -> None:
        """A slot that came free is for whoever waits longest; who finds none still ends this round."""
        for _ in range(len(self._waiting)):
            if not any(self._pathfinder.free_slots()):
                return
            outgoing, request = self._waiting.popleft()
            payment = outgoing.payment
            if payment.phase is send.Phase.RUNNING and not payment.giving_up:
                self._find(outgoing, request)
                if self._waiting and self._waiting[-1][0] is outgoing:
                    return

    def _find(self, outgoing: Outgoing, request: send.FindRoutes) -> None:
        if self.resting:
            return
        found = self._pathfinder.find(request)
        if isinstance(found, str):
            if 0 in self._pathfinder.free_slots():
                self._waiting.append((outgoing, request))
            else:
                self._channels.tell(partial(self._advance, outgoing, send.NoRoute(found)))
            return
        answer = send.RoutesFound(
            routes=found,
            height=self._htlcs.height,
            entropy=self._runtime.entropy(32),
            now_s=self._runtime.now(),
        )
        self._channels.tell(partial(self._advance, outgoing, answer))

    def _send(self, outgoing: Outgoing, part: send.SendPart) -> None:
        channel_id = self.channel_of(part.short_channel_id)
        add = ev.Add(INTERNAL, part.amount_msat, part.payment_hash, part.cltv_expiry, part.onion)
        key = self._htlcs.offer(channel_id, add) if channel_id is not None else "no such channel"
        if isinstance(key, str):
            refused = send.PartFailed(part.part_id, send.LocalRefusal(key), self._runtime.now())
            self._channels.tell(partial(self._advance, outgoing, refused))
            return
        self._parts[key] = (outgoing, part.part_id)
        row = (key.channel_id, key.htlc_id, part.payment_hash, part.part_id)
        self._journal.write(PUT_PART, *row)


def _finish(done: asyncio.Future[Result], result: Result) -> None:
    if not done.done():
        done.set_result(result)
