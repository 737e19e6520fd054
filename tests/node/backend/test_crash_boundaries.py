"""A backend that is killed at any store, send or publish boundary takes up everything where it was.

Every transaction that a node makes while payments run is a place to die: before it is durable, after it with nothing
said, and with one or two of its outputs out.
"""

import asyncio
import contextlib
from itertools import count

import pytest
from crash_payments import Order, check_payments, start_paying
from crash_world import OPEN_TASK, Fuse, World, copy

from node.errors import Refused

FUNDING_SAT = 1_000_000
PUSH_MSAT = 400_000_000
BLOCKS = 6
PLANS = (
    ("A", "C", 50_000_000, True),
    ("C", "A", 30_000_000, True),
    ("B", "C", 20_000_000, True),
    ("A", "B", 10_000_000, True),
    ("A", "C", 7_000_000, False),
    ("A", "C", 100_000, True),  # trimmed
)
LAST_PLANS = (("A", "C", 1_000_000, True), ("C", "A", 2_000_000, True))
POSITIONS = {"before": None, "durable": 0, "one output": 1, "two outputs": 2}


async def order(world, payer, payee, amount_msat, known):
    node = world[payee].backend
    made = await node.commands.invoice(amount_msat=amount_msat, expiry_s=1_000_000)
    payment_hash = bytes.fromhex(made["payment_hash"])
    if not known:
        node.journal.write("DELETE FROM invoices WHERE payment_hash = ?", payment_hash)
    return Order(payer, payee, amount_msat, made["bolt11"], payment_hash, known)


async def open_channel(world, opener, accepter):
    node_id = world[accepter].backend.node_id.hex()
    await world[opener].backend.commands.open(
        node_id=node_id, funding_sat=FUNDING_SAT, push_msat=PUSH_MSAT, announce=False
    )


async def build(directory, **options):
    """A world with channels and invoices, put to rest: its chain, and what will be paid."""
    world = World(directory, **options)
    await world.start()
    await open_channel(world, "A", "B")
    await open_channel(world, "B", "C")
    world.chain.mine(BLOCKS)
    await world.quiet()
    world.check_channels(2)
    orders = [await order(world, *plan) for plan in PLANS]
    last = [await order(world, *plan) for plan in LAST_PLANS]
    await world.quiet()
    await world.stop()
    return world.chain, orders, last


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template")
    chain, orders, last = asyncio.run(build(directory))
    yield directory, chain, orders, last
    chain.close()


async def run(template, directory, victim, fuse, again=None, seed=0):
    """One life and death; whether the victim died at all."""
    source, chain, orders, last = template
    copy(source, directory)
    world = World(directory, chain, seed=seed)
    await world.start()
    world.check_channels(2)
    before = {name: node.balance_msat for name, node in world.nodes.items()}
    world[victim].fuse = fuse
    start_paying(world, orders)
    await world.quiet()
    world[victim].fuse = None
    died = await world.recover(again)
    if again is not None:
        world[victim].fuse = None
        await world.recover()
    world.check_channels(2)
    settled = check_payments(world, orders, before)
    if not died:
        assert settled == [each for each in orders if each.is_known]
    start_paying(world, last)
    await world.quiet()
    world.check_channels(2)
    assert check_payments(world, [*orders, *last], before) == [*settled, *last]
    await world.stop()
    return died


async def at_every_commit(run, directory, victim, position):
    """Run again and again, until the victim outlives the story; how often it did not."""
    for commit in count():
        fuse = Fuse(commit, POSITIONS[position])
        try:
            died = await run(directory / str(commit), fuse)
        except BaseException as error:
            error.add_note(f"{victim} killed at commit {commit}: {position}")
            raise
        if not died:
            return commit
    raise AssertionError


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("victim", ["B", "A", "C"])
async def test_killed_while_payments_run(template, tmp_path, victim, position):
    async def story(directory, fuse):
        return await run(template, directory, victim, fuse, seed=f"{victim}{position}")

    assert await at_every_commit(story, tmp_path, victim, position) > 10


@pytest.mark.parametrize("position", POSITIONS)
async def test_killed_again_while_it_recovers(template, tmp_path, position):
    async def story(directory, fuse):
        again = Fuse(fuse.commits_left % 5, fuse.outputs_left)
        return await run(template, directory, "B", fuse, again, seed=position)

    assert await at_every_commit(story, tmp_path, "B", position) > 10


async def open_both(directory, victim, fuse):
    """Two channels are opened; whether the victim died of it."""
    world = World(directory, seed=victim)
    await world.start()
    world[victim].fuse = fuse
    for opener, accepter in ("AB", "BC"):
        world[opener].runtime.spawn(try_to_open(world, opener, accepter), OPEN_TASK)
    await world.quiet()
    world.chain.mine(BLOCKS)
    await world.quiet()
    world[victim].fuse = None
    died = await world.recover()
    world.chain.mine(BLOCKS)
    await world.quiet()
    opened = await world.check_fundings()
    assert world.faults == []
    assert died or opened == 2
    await world.stop()
    world.chain.close()
    return died


async def try_to_open(world, opener, accepter):
    with contextlib.suppress(Refused):
        await open_channel(world, opener, accepter)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("victim", ["B", "A", "C"])
async def test_killed_while_channels_open(tmp_path, victim, position):
    async def story(directory, fuse):
        return await open_both(directory, victim, fuse)

    assert await at_every_commit(story, tmp_path, victim, position) >= 3
