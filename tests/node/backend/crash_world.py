"""Three real backends over one chain, without sockets or threads, any of which can be killed at any commit.

Killing leaves what `kill -9` leaves: the database file. Frames that a backend had let go of still arrive.
"""

import asyncio
import random
import shutil

import msgspec
from crash_frontend import Connection, Frontend

from lnsim.chain.embedded import EmbeddedNode
from node.backend.backend import Backend
from node.backend.receiving import Received
from node.backend.sqlite_store import SqliteStore
from node.channel.model import Link
from node.payment.send import Payment
from node.runtime.config import BackendConfig, BitcoindConfig, ChannelConfig
from node.runtime.runtime import SystemRuntime

NOW_S = 1_700_000_000.0
NEVER_S = 3_600.0
QUIET_TURNS = 20  # of the loop in which nothing happens
MAX_TURNS = 20_000
SLOWEST_TURNS = 4  # that a message or a sync takes
NAMES = "ABC"
PAIRS = ("AB", "BC")
PAY_TASK, OPEN_TASK = "pay", "opening"  # of users: wait for what may not come
FOREVER = frozenset(("journal", "chain", "sweep", PAY_TASK, OPEN_TASK))


class Crash(Exception):  # noqa: N818 - the end of a process is no error
    """The process is gone from here on."""


class Fuse:
    """Has a node die at its `commit`-th transaction from now: before it, or once `outputs` outputs are out."""

    def __init__(self, commit, outputs=None):
        self.commits_left = commit
        self.outputs_left = outputs  # None: before the transaction is durable
        self.lit = False

    def before(self):
        self.commits_left -= 1
        return self.commits_left < 0 and self.outputs_left is None

    def after(self):
        self.lit = self.commits_left < 0
        return self.lit and self.outputs_left == 0

    def burn(self):
        """Whether there is no going on to the next output."""
        if self.lit:
            self.outputs_left -= 1
        return self.lit and self.outputs_left < 0


class Fragile:
    """A real store, whose `node` dies where its fuse says."""

    def commit(self, statements):
        fuse = self.node.fuse
        if fuse is not None and fuse.before():
            self.node.die()
        super().commit(statements)
        if fuse is not None and fuse.after():
            self.node.die()


class FragileStore(Fragile, SqliteStore):
    """What the death of a process leaves does not depend on syncs, so it does none."""

    def __init__(self, path):
        super().__init__(path)
        self._db.execute("PRAGMA synchronous=OFF")


def on_sqlite(node, directory):
    return FragileStore(directory / "lnsim.sqlite")


class LocalRuntime(SystemRuntime):
    """No sockets, no threads, no clock, no chance."""

    def __init__(self, seed, on_failure):
        super().__init__(on_failure)
        self.random = random.Random(seed)

    def now(self):
        return NOW_S

    def monotonic(self):
        return NOW_S

    def entropy(self, size):
        return self.random.randbytes(size)

    async def run_blocking(self, lane, work):
        for _ in range(1 + self.random.randrange(SLOWEST_TURNS)):  # the loop goes on deciding meanwhile
            await asyncio.sleep(0)
        return work()

    async def listen(self, address, factory, *, share_port=False, tls=None):
        return NoListener()

    @property
    def names(self):
        return [task.get_name() for task in self._tasks]

    def cancel_all(self):
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()


class NoListener:
    address = "nowhere"

    def close(self):
        pass


class Node:
    """One backend, and after its death the next one from the same directory."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.lives = 0
        self.is_dead = True
        self.is_stopping = False
        self.frontend = Frontend(self)
        self.frontend_knows = asyncio.Event()
        self.fuse = None

    async def start(self):
        self.lives += 1
        self.is_dead = self.is_stopping = False
        directory = self.world.directory / self.name
        directory.mkdir(parents=True, exist_ok=True)
        seed = f"{self.world.random.random()}{self.name}{self.lives}"
        self.runtime = LocalRuntime(seed, self._task_failed)
        config = BackendConfig(
            data_dir=str(directory),
            reconnect=False,
            bitcoind=BitcoindConfig(poll_interval_s=NEVER_S),
            channels=ChannelConfig(minimum_depth=1),
        )
        self.hints = self.world.chain.hints()
        client = self.world.chain.client("")
        self.store = self.world.opened(self, directory)
        self.store.node = self
        self.backend = Backend(self.runtime, config, client, self.store, "test", self.hints)
        self._guard(self.backend.journal)
        await self.backend.start()
        if self.lives > 1:
            await self.frontend_knows.wait()
        self.frontend_knows.clear()
        self.frontend.connect()

    def _guard(self, journal):
        """Every output asks the fuse first; after the last one, a lit fuse goes off."""

        def guarded(add):
            return lambda output: add(lambda: self._release(output))

        journal.send = guarded(journal.send)
        journal.publish = guarded(journal.publish)
        journal.reply = guarded(journal.reply)
        journal.after_commit(self._all_out)

    def _release(self, output):
        if self.fuse is not None and self.fuse.burn():
            self.die()
        output()

    def _all_out(self):
        if self.fuse is not None and self.fuse.lit:
            self.die()

    def die(self):
        self.kill()
        raise Crash

    def kill(self):
        """From here on this life decides, stores and says nothing."""
        self.is_dead, self.fuse = True, None
        self.hints.close()
        self.runtime.cancel_all()
        self.store.close()
        self.frontend.lost()

    async def stop(self):
        """As an operator would stop it."""
        self.is_stopping = True
        await self.backend.stop()
        self.is_dead, self.fuse = True, None
        self.hints.close()
        self.runtime.cancel_all()
        self.frontend.lost()

    def _task_failed(self, name, error):
        if not isinstance(error, Crash):
            self.world.faults.append(f"{self.name}: task {name}: {error!r}")

    @property
    def is_busy(self):
        if self.is_dead:
            return False
        backend = self.backend
        return (
            not backend.journal._idle.is_set()
            or backend.chain.height != self.world.chain.chain.height
            or any(name not in FOREVER for name in self.runtime.names)
        )

    @property
    def channels(self):
        return {channel_id: r.channel for channel_id, r in self.backend.channels.by_id.items()}

    @property
    def balance_msat(self):
        return sum(channel.local_msat for channel in self.channels.values())

    def count(self, table):
        return self.store.rows(f"SELECT count(*) FROM {table}")[0][0]

    def payment(self, payment_hash):
        rows = self.store.rows("SELECT data FROM payments WHERE payment_hash = ?", (payment_hash,))
        return msgspec.msgpack.decode(rows[0][0], type=Payment) if rows else None

    def received_msat(self, payment_hash):
        rows = self.store.rows("SELECT data FROM invoices WHERE payment_hash = ?", (payment_hash,))
        row = msgspec.msgpack.decode(rows[0][0], type=Received) if rows else None
        return row.received_msat if row is not None and row.is_paid else 0


class World:
    def __init__(self, directory, chain=None, *, seed=0, holding=False, drops=0.0, opened=on_sqlite):
        """`holding`: frontends keep sessions over a death; `drops` is how often what was written then is lost.

        `opened`: the database of a node with this data_dir.
        """
        self.opened = opened
        self.directory = directory
        self.holding, self.drops = holding, drops
        self.random = random.Random(seed)
        self.chain = chain or EmbeddedNode(lambda: NOW_S)
        self.faults = []
        self.refused = []  # why sessions were not adopted
        self.in_flight = 0
        self.sessions = 0
        self.nodes = {name: Node(self, name) for name in NAMES}

    def __getitem__(self, name):
        return self.nodes[name]

    async def start(self):
        for node in self.nodes.values():
            await node.start()
        self.join()
        await self.quiet()

    def join(self):
        """Connect whoever is not."""
        for pair in PAIRS:
            one, two = self[pair[0]], self[pair[1]]
            if any(connection.remote is two for connection in one.frontend.connections.values()):
                continue
            self.sessions += 1
            ends = [
                Connection(one.frontend, self.sessions, two),
                Connection(two.frontend, self.sessions, one),
            ]
            ends[0].other, ends[1].other = ends[1], ends[0]
            for end in ends:
                end.frontend.join(end)

    def later(self, call):
        self.in_flight += 1
        asyncio.get_running_loop().call_soon(self._turn, call, self.random.randrange(SLOWEST_TURNS))

    def _turn(self, call, turns):
        if turns:
            asyncio.get_running_loop().call_soon(self._turn, call, turns - 1)
            return
        self.in_flight -= 1
        call()

    async def quiet(self):
        """Until nothing moves any more."""
        still = 0
        for _ in range(MAX_TURNS):
            await asyncio.sleep(0)
            busy = self.in_flight or any(node.is_busy for node in self.nodes.values())
            still = 0 if busy else still + 1
            if still == QUIET_TURNS:
                return
        raise AssertionError(f"never quiet: {[(n.name, n.runtime.names) for n in self.nodes.values()]}")

    async def settle(self):
        """Quiet, and what only waited for a transaction is written."""
        await self.quiet()
        for node in self.nodes.values():
            if not node.is_dead:
                node.backend.checkpoints.sweep()
        await self.quiet()

    async def recover(self, fuse=None):
        """Start again whoever died, with a fuse in it for its new life; whether anybody had to be."""
        died = [node for node in self.nodes.values() if node.is_dead]
        for node in died:
            await node.start()
            node.fuse = fuse
        await self.quiet()  # whoever can be adopted is
        if any(node.is_dead for node in self.nodes.values()):
            return True
        self.join()
        await self.quiet()
        return bool(died)

    async def stop(self):
        for node in self.nodes.values():
            if not node.is_dead:
                node.fuse = None
                node.kill()
        await self.settle_tasks()

    async def settle_tasks(self):
        """Nothing of this world outlives it."""
        mine = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    async def check_fundings(self):
        """What is on the chain has a channel at both its ends; what is not has none that counts. How many are."""
        client, confirmed = self.chain.client(""), set()
        for node in self.nodes.values():
            for channel in node.channels.values():
                place = channel.funding
                if place and await client.txout(place.txid, place.output_index) is not None:
                    confirmed.add(channel.channel_id)
                else:
                    assert not channel.is_usable
        spent = sum(len(block_txs) - 1 for block_txs in self._blocks())
        assert len(confirmed) == spent, "coins went where nobody looks"
        assert {c for c, channel in self["B"].channels.items() if channel.is_usable} == confirmed
        return len(confirmed)

    def _blocks(self):
        ledger = self.chain.chain.ledger
        return [ledger.transactions(ledger.at(height)) for height in range(self.chain.chain.height + 1)]

    def check_channels(self, count):
        """Every channel is there at both ends, usable, empty, and the ends agree."""
        assert self.faults == []
        assert len(self["B"].channels) == count
        for pair in PAIRS:
            for one, two in (pair, pair[::-1]):
                ours, theirs = self[one].channels, self[two].channels
                for channel_id in ours.keys() & theirs.keys():
                    mine, other = ours[channel_id], theirs[channel_id]
                    assert mine.is_usable, (one, mine.phase, mine.link)
                    assert mine.link is Link.ONLINE
                    assert not mine.offered, (one, mine.offered)
                    assert not mine.received, (one, mine.received)
                    assert mine.local_msat == other.remote_msat
                    assert mine.local_msat + mine.remote_msat == 1_000 * mine.funding_sat
        shared = [c for pair in PAIRS for c in self[pair[0]].channels.keys() & self[pair[1]].channels.keys()]
        assert sorted(shared) == sorted(self["B"].channels)
        for node in self.nodes.values():
            assert node.count("forwards") == 0, node.name
            assert node.count("payment_parts") == 0, node.name
            assert node.backend.htlcs.pending_forwards == 0
            assert node.backend.sending.pending == 0


def copy(template, directory):
    for name in NAMES:
        shutil.copytree(template / name, directory / name)
