"""The backend's eyes on the chain: one stream of news about everything that was asked for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from node.backend.block_follower import BlockDisconnected, BlockFollower
from node.backend.chain_client import BlockId, ChainClient, ChainUnavailable
from node.backend.watches import (
    ConfirmWatch,
    Event,
    Forget,
    Key,
    News,
    Register,
    Scanned,
    SpendWatch,
    TransactionSeen,
    Watches,
    step,
)
from node.bitcoin.block import parse_block, parse_transaction
from node.errors import MalformedMessage, Refused

MAX_SPENDERS_ASKED = 1_000  # outpoints in one request


class Hints(Protocol):
    """Notices that something happened. Losing them costs time, never truth."""

    async def next(self) -> bytes | None:
        """A mempool transaction, or None for 'look at the tip'."""
        ...


class ChainWatcher:
    """Register watches at any time; `events` is run by one task and yields what became of them."""

    def __init__(
        self, client: ChainClient, start: BlockId, poll_interval_s: float, hints: Hints | None = None
    ) -> None:
        self.failure: str | None = None  # why the chain could not be asked, for the health report
        self._client = client
        self._follower = BlockFollower(client, start)
        self._watches = Watches(start)
        self._poll_interval_s = poll_interval_s
        self._hints = hints
        self._hint: asyncio.Task[bytes | None] | None = None
        self._new: dict[Key, tuple[ConfirmWatch | SpendWatch, int]] = {}
        self._unchecked: dict[Key, tuple[ConfirmWatch | SpendWatch, int]] = {}
        self._late: dict[Key, int] = {}
        self._cursor = start
        self._ask_due = True  # whether the mempool may hold what no notice told us
        self._registered = asyncio.Event()

    @property
    def tip(self) -> BlockId:
        return self._follower.tip

    def watch_confirmed(
        self,
        key: Key,
        *,
        min_depth: int,
        since_height: int,
        txid: bytes | None = None,
        script: bytes | None = None,
    ) -> None:
        """Tell when the transaction `txid`, or one that pays `script`, has `min_depth` confirmations.

        Blocks from `since_height` on count, also those that the watcher has already passed.
        """
        self._add(ConfirmWatch(key, min_depth, txid, script), since_height)

    def watch_spent(
        self, key: Key, txid: bytes, vout: int, *, since_height: int, mempool: bool = True
    ) -> None:
        """Tell who spends an output: when a block has it and, with `mempool`, also when the mempool has it.

        Asking the mempool costs a request for every thousand such watches each time; blocks cost nothing more.
        """
        self._add(SpendWatch(key, (txid, vout), mempool), since_height)

    def forget(self, key: Key) -> None:
        for waiting in (self._new, self._unchecked, self._late):
            waiting.pop(key, None)
        self._watches, _ = step(self._watches, Forget(key))

    async def events(self) -> AsyncIterator[News]:
        """The news, in order and without end. An unreachable chain is asked again, not reported."""
        try:
            while True:
                try:
                    async for news in self._round():
                        yield news
                    self.failure = None
                except Refused as why:  # also an error of bitcoind's own: it may be pruned, or mend itself
                    self.failure = str(why)
                    await asyncio.sleep(self._poll_interval_s)  # whatever is new: not faster than that
                for news in await self._wait():
                    yield news
        finally:
            if self._hint is not None:
                self._hint.cancel()

    def _add(self, watch: ConfirmWatch | SpendWatch, since_height: int) -> None:
        self._new[watch.key] = (watch, since_height)
        self._registered.set()

    async def _round(self) -> AsyncIterator[News]:
        """Take in the new watches, then every block, then the mempool."""
        async for news in self._admit():
            yield news
        async for event in self._follower.advance():
            self._ask_due |= isinstance(event, BlockDisconnected)
            for news in self._step(event):
                yield news
            async for news in self._admit():
                yield news
        if self._ask_due:
            for news in await self._ask_mempool():
                yield news
            self._ask_due = False

    async def _admit(self) -> AsyncIterator[News]:
        """Register what is new and look at the blocks that it came too late for; goes on where it broke off."""
        while self._unchecked or self._late or self._new:
            if self._unchecked:
                key, (watch, since) = next(iter(self._unchecked.items()))
                missed = await self._missed(watch, since)
                if self._unchecked.pop(key, None) and missed:
                    self._late[key] = since
            elif self._late:
                for news in await self._look_back():
                    yield news
            else:
                self._unchecked, self._new = self._new, {}
                self._registered.clear()
                self._cursor = self.tip
                self._step(Register(tuple(watch for watch, _ in self._unchecked.values())))
                self._ask_due = True

    async def _look_back(self) -> list[News]:
        """Look at one block of our past, from the tip down; by parents, so that it is our own branch."""
        cursor = self._cursor
        if cursor.height < min(self._late.values()) or cursor.height < 0:
            self._late.clear()
            return []
        raw = await self._client.block(cursor.hash)
        if raw is None:
            raise ChainUnavailable(f"the chain lacks block {cursor.hash[::-1].hex()}")
        block = parse_block(raw)
        self._cursor = BlockId(cursor.height - 1, block.previous)
        return self._step(Scanned(cursor.height, block, frozenset(self._late)))

    async def _missed(self, watch: ConfirmWatch | SpendWatch, since_height: int) -> bool:
        """Whether blocks that we have passed may hold what the watch waits for."""
        if since_height > self.tip.height:
            return False
        if isinstance(watch, ConfirmWatch):
            return True
        return await self._client.txout(*watch.outpoint, with_mempool=False) is None

    async def _ask_mempool(self) -> list[News]:
        """Look for spends that no notice told us of."""
        known = self._watches.unconfirmed_spends
        outpoints = list(known)
        found: dict[bytes, None] = {}
        for start in range(0, len(outpoints), MAX_SPENDERS_ASKED):
            part = outpoints[start : start + MAX_SPENDERS_ASKED]
            spenders = await self._client.mempool_spenders(part)
            found |= {txid: None for o, txid in zip(part, spenders, strict=True) if txid and txid != known[o]}
        news: list[News] = []
        for txid in found:
            raw = await self._client.raw_transaction(txid)
            if raw is not None:
                news += self._step(TransactionSeen(parse_transaction(raw)))
        return news

    async def _wait(self) -> list[News]:
        """Until the tip may have moved, a watch is new, or it is time to ask; mempool news meanwhile."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._poll_interval_s
        registered = asyncio.create_task(self._registered.wait())
        try:
            while (left_s := deadline_s - loop.time()) > 0 and not self._registered.is_set():
                if self._hint is None and self._hints is not None:
                    self._hint = asyncio.ensure_future(self._hints.next())
                tasks = [registered] if self._hint is None else [registered, self._hint]
                await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if self._hint is None or not self._hint.done():
                    continue
                hint, self._hint = self._hint.result(), None
                news = [] if hint is None else self._see(hint)
                if news or hint is None:
                    return news
        finally:
            registered.cancel()
        self._ask_due |= loop.time() >= deadline_s
        return []

    def _see(self, raw: bytes) -> list[News]:
        try:
            return self._step(TransactionSeen(parse_transaction(raw)))
        except MalformedMessage:
            return []

    def _step(self, event: Event) -> list[News]:
        self._watches, news = step(self._watches, event)
        return list(news)
