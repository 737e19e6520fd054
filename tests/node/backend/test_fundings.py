"""Killed anywhere between the wallet and the channel, no coin stays locked; and what its user locked stays so."""

import asyncio

import pytest
from backend_bench import Bench, Crash
from core_double import CoreDouble
from msgspec import msgpack
from test_crash import DoomedStore

from lnsim.chain.embedded import EmbeddedNode
from node.backend.fundings import KEY, Notes
from node.channel.model import Phase
from node.errors import Refused

START_S = 1_760_000_000.0
CALLS = 40  # of the RPC, above what an open needs: where it ends well, the kill comes too late
COMMITS = 8


@pytest.fixture
def core():
    """A chain of its own: its wallet's locks are what the tests are about."""
    node = EmbeddedNode(lambda: START_S, blocks=130)
    yield CoreDouble(node)
    node.close()


@pytest.fixture
def users(core):
    """A coin that the wallet's user has locked, for reasons of his own."""
    wallet = core.wallets.loaded[""]
    coin = next(iter(wallet.spendable())).outpoint
    wallet.locked.add(coin)
    return {coin}


def locked(core):
    return set(core.wallets.loaded[""].locked)


async def ready(bench, peer):
    await bench.connect(peer, bench.frontend())
    await bench.settle()


def opening(bench, peer):
    return asyncio.ensure_future(
        bench.backend.commands.open(node_id=peer.node_id.hex(), funding_sat=1_000_000, announce=False)
    )


async def killed(bench, work, is_dead):
    """Until the process is dead, or the work done."""
    for _ in range(20_000):
        bench.moved()
        if is_dead() or work.done():
            break
        await asyncio.sleep(0)
    work.cancel()
    await bench.drop()
    bench.runtime.failures.clear()


async def comes_back(bench, core, users, peer):
    """Started again: the channel lives and its coin is spent, or there is none and its coin is free."""
    core.after = str
    peer.halves.clear()
    await bench.start()
    await bench.settle()
    await bench.until(lambda: not bench.backend.chain.fundings._is_due)
    records = bench.backend.channels.of_peer(peer.node_id)
    in_mempool = {coin for entry in core.chain.mempool.entries.values() for coin in _inputs(entry)}
    assert locked(core) - in_mempool == users
    assert bool(records) == bool(in_mempool), "what is stored is published, and nothing else"
    if not records:
        await ready(bench, peer)
        await bench.until((again := opening(bench, peer)).done)
        again.result()
    record = bench.record(peer)
    await bench.settle()
    bench.chain.mine(1)
    await bench.until(lambda: record.channel.phase is not Phase.FUNDING_SIGNED)
    await bench.drop()


def _inputs(entry):
    return {each.outpoint for each in entry.tx.inputs}


@pytest.mark.parametrize("call", range(CALLS))
async def test_killed_at_any_call_to_bitcoind(core, users, tmp_path, call):
    """The call was done, its answer came nowhere."""
    bench = await Bench(tmp_path / "node", core).start()
    peer = bench.peer("bob")
    await ready(bench, peer)
    made = []

    def count(method):
        made.append(method)
        if len(made) > call:
            raise Crash(method)

    core.after = count
    work = opening(bench, peer)
    await killed(bench, work, lambda: len(made) > call)
    await comes_back(bench, core, users, peer)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, COMMITS))
async def test_killed_at_any_commit(core, users, tmp_path, commit, before):
    (tmp_path / "node").mkdir()
    store = DoomedStore(tmp_path / "node" / "db.sqlite")
    bench = await Bench(tmp_path / "node", core).start(store)
    peer = bench.peer("bob")
    await ready(bench, peer)
    store.left, store.before = commit, before
    await killed(bench, opening(bench, peer), lambda: store.left <= 0)
    await comes_back(bench, core, users, peer)


async def test_a_wallet_whose_answer_got_lost_gives_its_coins_back(core, users, tmp_path):
    """While it runs: it may have locked them, and said so to nobody."""
    bench = await Bench(tmp_path / "node", core).start()
    peer = bench.peer("bob")
    await ready(bench, peer)

    def lose(method):
        if method == "fundrawtransaction":
            raise ConnectionResetError("gone")

    core.after = lose
    with pytest.raises(Refused, match="the wallet: the connection to bitcoind broke"):
        await asyncio.wait_for(opening_moved(bench, peer), 20)
    await bench.settle()
    assert locked(core) == users
    await bench.drop()


async def opening_moved(bench, peer):
    work = opening(bench, peer)
    await bench.until(work.done)
    return work.result()


class Unhurried(CoreDouble):
    """Takes transactions in only once it may."""

    def __init__(self, node):
        super().__init__(node)
        self.may = asyncio.Event()

    async def post(self, path, body, headers, timeout_s):
        if b"sendrawtransaction" in body:
            await self.may.wait()
        return await super().post(path, body, headers, timeout_s)


async def test_an_open_is_answered_once_bitcoind_has_the_transaction(tmp_path):
    """Whoever has a block made then finds the channel's funding in it."""
    node = EmbeddedNode(lambda: START_S, blocks=130)
    core = Unhurried(node)
    bench = await Bench(tmp_path / "node", core).start()
    peer = bench.peer("bob")
    await ready(bench, peer)
    work = opening(bench, peer)
    await bench.until(lambda: bench.backend.chain.unconfirmed == 1)
    await bench.settle()
    assert not work.done()
    core.may.set()
    await bench.until(work.done)
    assert list(core.chain.mempool.entries) == [bench.record(peer).channel.funding.txid]
    await bench.drop()
    node.close()


async def test_bitcoind_away_at_the_worst_moment_is_asked_again(core, users, tmp_path):
    bench = await Bench(tmp_path / "node", core).start()
    peer = bench.peer("bob")
    await ready(bench, peer)

    def vanish(method):
        if method == "fundrawtransaction":
            core.is_there = False
            raise ConnectionResetError("gone")

    core.after = vanish
    with pytest.raises(Refused, match="the wallet"):
        await opening_moved(bench, peer)
    await bench.settle()
    assert locked(core) != users
    core.after, core.is_there = str, True
    bench.chain.mine(1)
    await bench.until(lambda: locked(core) == users)
    await bench.drop()


async def test_of_another_wallet_or_an_older_copy_nothing_is_unlocked(core, users, tmp_path):
    bench = await Bench(tmp_path / "node", core).start()
    for notes, is_older in (
        (Notes(wallet="cold", ours=frozenset(users)), False),
        (Notes(wallet="", ours=frozenset(users)), True),
    ):
        bench.backend.store.commit(
            [("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(KEY, msgpack.encode(notes))])]
        )
        fundings = bench.backend.chain.fundings
        fundings.load(bench.backend.store, is_older=is_older)
        assert not fundings._is_due
    await bench.drop()
