"""The wallet's coins for channels. None stays locked for a channel that never came to be, wherever we are killed.

bitcoind locks the coins of a funding transaction until they are spent or unlocked. What is locked before the wallet is
asked is written down first, and what it locked for us with the answer. So at every moment the notes and bitcoind's list
tell which locks are ours, and those of its user are left alone. One funding at a time: else neither could be told.
"""

import asyncio
from functools import partial

import msgspec
from msgspec.structs import replace

from node.backend.chain_client import ChainClient, Outpoint
from node.backend.channels import Channels, Record
from node.backend.journal import Journal
from node.backend.store import PUT_META, Store
from node.bitcoin.transaction import parse
from node.channel import effects as fx
from node.channel import events as ev
from node.errors import Refused
from node.runtime import logs
from node.runtime.runtime import Runtime

KEY = "fundings"

log = logs.get("funding")


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """What is durable. The coins may be another wallet's, if the configuration has changed."""

    wallet: str
    before: frozenset[Outpoint] | None = (
        None  # locked when the wallet was asked, while its answer is not noted
    )
    ours: frozenset[Outpoint] = (
        frozenset()
    )  # locked for transactions that were not published when this was noted


class Fundings:
    def __init__(
        self, runtime: Runtime, journal: Journal, channels: Channels, client: ChainClient, wallet: str
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._channels = channels
        self._client = client
        self._notes = Notes(wallet=wallet)
        self._needed: frozenset[Outpoint] = frozenset()  # by what will be published
        self._one = asyncio.Lock()

    def load(self, store: Store, *, is_older: bool) -> None:
        """`is_older`: the database is a copy: what was locked since is not known."""
        for (raw,) in store.rows("SELECT tx FROM publishes"):
            assert isinstance(raw, bytes)
            self._needed |= _coins(raw)
        data = store.meta(KEY)
        if data is None:
            return
        notes = msgspec.msgpack.decode(data, type=Notes)
        if is_older or notes.wallet != self._notes.wallet:
            log.warning("locks_are_left", wallet=notes.wallet, coins=len(notes.ours))
            return
        self._notes = notes

    @property
    def _is_due(self) -> bool:
        """Whether coins may be locked that nobody needs."""
        return self._notes.before is not None or not self._notes.ours <= self._needed

    def sweep(self) -> None:
        """At the start and with every block: give back what could not be given back before."""
        if self._is_due and not self._one.locked():
            self._runtime.spawn(self._tidy(), "unlock")

    def fund(self, record: Record, effect: fx.Fund, feerate_per_kw: int) -> None:
        self._runtime.spawn(self._fund(record, effect, feerate_per_kw), "fund")

    async def _fund(self, record: Record, effect: fx.Fund, feerate_per_kw: int) -> None:
        async with self._one:
            try:
                if self._is_due:
                    await self._unlock_ours()
                await self._note(replace(self._notes, before=await self._client.locked()))
                made = await self._client.fund(effect.script, effect.amount_sat, feerate_per_kw)
            except Refused as error:
                log.warning("not_funded", error=str(error))
                self._channels.apply(record, ev.Abandon(f"the wallet: {error}"))
                await self._try_to_unlock()
                return
            if record.channel.channel_id not in self._channels.by_id:  # the peer went away meanwhile
                await self._try_to_unlock()
                return
            coins = _coins(made.tx)
            self._needed |= coins
            self._write(replace(self._notes, before=None, ours=self._notes.ours | coins))
            self._channels.apply(record, ev.Funded(made.tx, made.output_index))

    def release(self, tx: bytes) -> None:
        """A transaction of ours that will never be published."""
        self._needed -= _coins(tx)
        self._runtime.spawn(self._tidy(), "unlock")

    def published(self, tx: bytes) -> None:
        """From now on its row in the store speaks for its coins."""
        coins = _coins(tx)
        if coins & self._notes.ours:
            self._needed -= coins
            self._write(replace(self._notes, ours=self._notes.ours - coins))

    async def _tidy(self) -> None:
        async with self._one:
            await self._try_to_unlock()

    async def _try_to_unlock(self) -> None:
        try:
            await self._unlock_ours()
        except Refused as error:  # with the next block, then
            log.warning("not_unlocked", error=str(error))

    async def _unlock_ours(self) -> None:
        """Raises Refused where bitcoind does not answer; the notes stay as they are."""
        notes = self._notes
        locked = await self._client.locked()
        ours = notes.ours if notes.before is None else notes.ours | (locked - notes.before)
        free = (ours & locked) - self._needed
        if free:
            await self._client.unlock_coins(free)
            log.info("coins_unlocked", coins=len(free))
        self._write(replace(self._notes, before=None, ours=self._notes.ours & self._needed))

    def _write(self, notes: Notes) -> None:
        if notes != self._notes:
            self._notes = notes
            self._journal.write(PUT_META, KEY, msgspec.msgpack.encode(notes))

    async def _note(self, notes: Notes) -> None:
        """Returns once it is durable."""
        self._write(notes)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._journal.reply(partial(_finish, done))
        await done


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _coins(tx: bytes) -> frozenset[Outpoint]:
    return frozenset(each.outpoint for each in parse(tx).inputs)
