"""Group commit: what one turn of the loop decided goes to the disk together, and only then leaves the process.

While a transaction is being synced, the loop goes on deciding; all of it makes up the next transaction. So the
busier the node is, the more steps share a sync, and commitments are signed at most once per transaction.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from node.backend.store import Parameters, Statements, Store, StoreAway
from node.errors import Ended
from node.runtime import logs
from node.runtime.histogram import Histogram
from node.runtime.runtime import Runtime

Thunk = Callable[[], None]

RETRY_S = 0.25
MAX_AWAY_S = 300.0  # then a supervisor starts us anew: it may be our end of it that is broken

log = logs.get("journal")


class Storable(Protocol):
    """Something whose newest value is written once per transaction, however often it changed."""

    def statement(self) -> tuple[str, Parameters]: ...


class _Batch:
    __slots__ = ("outputs", "publishes", "replies", "rows", "storables")

    def __init__(self) -> None:
        self.storables: dict[Storable, None] = {}
        self.rows: list[tuple[str, Parameters]] = []
        self.outputs: list[Thunk] = []
        self.publishes: list[Thunk] = []
        self.replies: list[Thunk] = []

    @property
    def is_empty(self) -> bool:
        return not (self.storables or self.rows)

    def statements(self) -> Statements:
        """In the order in which they were decided; runs of one statement go together."""
        self.rows += [storable.statement() for storable in self.storables]
        return [(sql, [row[1] for row in run]) for sql, run in groupby(self.rows, key=itemgetter(0))]


class Journal:
    """Collects rows and what may follow them; one task commits and then releases, in that order."""

    def __init__(self, runtime: Runtime, store: Store) -> None:
        self._runtime = runtime
        self._store = store
        self._batch = _Batch()
        self._wake = asyncio.Event()
        self._closing: list[Thunk] = []
        self._closed: list[Thunk] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self.commit_s = Histogram()  # what a transaction took, the sync of the disk included

    def before_commit(self, hook: Thunk) -> None:
        """Run `hook` each time a transaction is about to be closed; what it adds still goes in."""
        self._closing.append(hook)

    def after_commit(self, hook: Thunk) -> None:
        """Run `hook` each time a transaction is durable and its outputs are released."""
        self._closed.append(hook)

    def store(self, value: Storable) -> None:
        self._batch.storables[value] = None
        self.wake()

    def discard(self, value: Storable) -> None:
        """Its row is deleted: do not write it again."""
        self._batch.storables.pop(value, None)

    def is_stored(self, value: Storable) -> bool:
        """Whether `value` goes into the transaction that is being filled."""
        return value in self._batch.storables

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit so far."""
        return self._batch.is_empty

    def write(self, sql: str, *parameters: object) -> None:
        self._batch.rows.append((sql, parameters))
        self.wake()

    def send(self, output: Thunk) -> None:
        """Run after the rows so far are durable, before publishes and replies."""
        self._batch.outputs.append(output)
        self.wake()

    def publish(self, output: Thunk) -> None:
        self._batch.publishes.append(output)
        self.wake()

    def reply(self, output: Thunk) -> None:
        self._batch.replies.append(output)
        self.wake()

    def wake(self) -> None:
        """Have a turn even if there is nothing to store (something may want to be signed)."""
        if not self._wake.is_set():
            self._idle.clear()
            self._wake.set()

    async def run(self) -> None:
        """Commit for ever. An exception of the store ends the backend: without it nothing may be promised."""
        while True:
            await self._wake.wait()
            for hook in self._closing:
                hook()
            self._wake.clear()
            batch, self._batch = self._batch, _Batch()
            if not batch.is_empty:
                await self._commit(batch.statements())
            if not self._store.leads():
                await self._lead_again()
            for output in (*batch.outputs, *batch.publishes, *batch.replies, *self._closed):
                output()
            if not self._wake.is_set():
                self._idle.set()

    async def _commit(self, statements: Statements) -> None:
        """Again and again while the database is away: it may have taken them all the same, which harms nothing.

        Meanwhile nothing leaves and nothing is acknowledged, so what comes in stops with the sessions' credit.
        """
        clock, since_s = asyncio.get_running_loop().time, None
        began_s = clock()
        while True:
            try:
                await self._runtime.run_blocking("store", partial(self._store.commit, statements))
            except StoreAway as error:
                if since_s is None:
                    since_s = clock()
                    log.error("store_away", error=str(error))
                if clock() - since_s > MAX_AWAY_S:
                    raise Ended(f"{error}; nothing is lost") from error
                await asyncio.sleep(RETRY_S)
            else:
                self.commit_s.observe(clock() - began_s)
                if since_s is not None:
                    log.info("store_back", after_s=round(clock() - since_s, 1))
                return

    async def _lead_again(self) -> None:
        """What is durable is said in our own term, or not by us: then `leads` raises."""
        while not self._store.leads():  # noqa: ASYNC110 - a thread renews the lease, which sets no event
            await asyncio.sleep(RETRY_S)

    async def settled(self) -> None:
        """Wait until everything decided so far is durable and out."""
        await self._idle.wait()
