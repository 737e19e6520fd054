"""Payments over a hop to a payee who holds them, and whoever takes part is killed at any store or send boundary."""

import asyncio

import pytest
from crash_payments import Order, check_payments, start_paying
from crash_world import Fuse, World, copy
from test_crash_boundaries import BLOCKS, at_every_commit, open_channel

from node.crypto.hashes import sha256
from node.errors import Refused

AMOUNTS_MSAT = (50_000_000, 30_000_000)
PREIMAGES = tuple(sha256(b"held %d" % n) for n in range(2))  # the first is settled, the second cancelled
HASHES = tuple(sha256(preimage) for preimage in PREIMAGES)


async def held_order(world, amount_msat, payment_hash):
    made = await world["C"].backend.commands.invoice(
        amount_msat=amount_msat, hold=True, payment_hash=payment_hash.hex()
    )
    return Order("A", "C", amount_msat, made["bolt11"], payment_hash)


async def build(directory):
    world = World(directory)
    await world.start()
    await open_channel(world, "A", "B")
    await open_channel(world, "B", "C")
    world.chain.mine(BLOCKS)
    await world.quiet()
    orders = [await held_order(world, *each) for each in zip(AMOUNTS_MSAT, HASHES, strict=True)]
    await world.quiet()
    await world.stop()
    return world.chain, orders


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template")
    chain, orders = asyncio.run(build(directory))
    yield directory, chain, orders
    chain.close()


def decide(world) -> None:
    """The payee settles the first and cancels the second, in tasks that may die with it."""
    if not world["C"].is_dead:
        world["C"].runtime.spawn(_decide(world["C"].backend.commands), "pay")


async def _decide(commands) -> None:
    await commands.cancel(payment_hash=HASHES[1].hex())
    try:
        await commands.settle(preimage=PREIMAGES[0].hex())
    except Refused as error:
        if "not held" not in str(error):
            raise


async def run(template, directory, victim, fuse, *, waits: bool):
    """One life and death, while the payments are made or while they are decided on; whether the victim died."""
    source, chain, orders = template
    copy(source, directory)
    world = World(directory, chain, seed=f"{victim}{fuse.commits_left}")
    await world.start()
    before = {name: node.balance_msat for name, node in world.nodes.items()}
    world[victim].fuse = None if waits else fuse
    start_paying(world, orders)
    await world.quiet()
    if waits:
        assert [(await state(world, payment_hash)) for payment_hash in HASHES] == ["held"] * 2
        world[victim].fuse = fuse
    decide(world)
    await world.quiet()
    world[victim].fuse = None
    died = await world.recover()
    decide(world)
    await world.quiet()
    world.check_channels(2)
    settled = check_payments(world, orders, before)
    assert settled == orders[:1] or (died and not settled and not waits), "only who never asked has not paid"
    assert (await state(world, HASHES[0])) == ("settled" if settled else "open")
    assert (await state(world, HASHES[1])) == "cancelled"
    await world.stop()
    return died


async def state(world, payment_hash) -> str:
    return (await world["C"].backend.commands.received(payment_hash=payment_hash.hex()))["state"]


@pytest.mark.parametrize("waits", [False, True], ids=["while it is paid", "while it is decided"])
@pytest.mark.parametrize("position", ["before", "durable", "one output"])
@pytest.mark.parametrize("victim", ["A", "B", "C"])
async def test_killed_around_a_held_payment(template, tmp_path, victim, position, waits):
    async def story(directory, fuse: Fuse):
        return await run(template, directory, victim, fuse, waits=waits)

    assert await at_every_commit(story, tmp_path, victim, position) > 2
