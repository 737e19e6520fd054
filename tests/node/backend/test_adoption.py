"""Frontends hold sessions over the death of a backend: what is adopted goes on, and what would be unsafe is not."""

import asyncio
from itertools import count

import pytest
from crash_payments import check_payments, start_paying
from crash_world import Fuse, World, copy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_crash_boundaries import LAST_PLANS, POSITIONS, build, order

from node.backend.checkpoints import Checkpoint, refusal
from node.channel.model import Link
from node.link.messages import HeldSession

MAX_TURNS = 300  # of the loop, between two things that happen in a story


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template")
    chain, orders, _ = asyncio.run(build(directory))
    yield directory, chain, orders
    chain.close()


async def begin(template, directory, **options):
    source, chain, _ = template
    copy(source, directory)
    world = World(directory, chain, holding=True, **options)
    await world.start()
    await world.settle()
    return world, {name: node.balance_msat for name, node in world.nodes.items()}


async def finish(world, orders, before):
    """Everything ends well, and everyone can still pay everyone."""
    world.check_channels(2)
    settled = check_payments(world, orders, before)
    last = [await order(world, *plan) for plan in LAST_PLANS]
    start_paying(world, last)
    await world.quiet()
    world.check_channels(2)
    assert check_payments(world, [*orders, *last], before) == [*settled, *last]
    await world.stop()


def adopted(world):
    return sum(node.frontend.adopted for node in world.nodes.values())


@pytest.mark.parametrize("drops", [0.0, 1.0])
async def test_idle_sessions_go_on_after_a_kill_as_if_nothing_had_been(template, tmp_path, drops):
    world, before = await begin(template, tmp_path, drops=drops)
    for name in ("B", "A", "B", "C"):
        numbers = set(world[name].frontend.connections)
        links = [channel.link for node in world.nodes.values() for channel in node.channels.values()]
        assert set(links) == {Link.ONLINE}
        world[name].kill()
        assert await world.recover()
        assert set(world[name].frontend.connections) == numbers
    assert world.refused == []
    assert (adopted(world), world.sessions) == (6, 2)
    await finish(world, [], before)


async def test_who_dies_again_before_its_frontend_was_back_is_adopted_by_the_third(template, tmp_path):
    world, before = await begin(template, tmp_path)
    for _ in range(3):
        world["B"].kill()
        await world["B"].start()
    await world.recover()
    assert world.refused == []
    assert world.sessions == 2
    await finish(world, [], before)


async def test_a_planned_stop_under_load_closes_nothing_and_payments_go_on_after_it(template, tmp_path):
    world, before = await begin(template, tmp_path, seed=7)
    _, _, orders = template
    start_paying(world, orders)
    for turns in (40, 60, 80):
        for _ in range(turns):
            await asyncio.sleep(0)
        await world["B"].stop()
        await world.recover()
    await world.quiet()
    assert world.refused == []
    assert (adopted(world), world.sessions) == (6, 2)
    assert check_payments(world, orders, before) == [each for each in orders if each.is_known]
    await finish(world, orders, before)


async def run(template, directory, victim, fuse, seed):
    """One life and death among payments; whether the victim died at all, and how many were adopted."""
    world, before = await begin(template, directory, seed=seed, drops=0.3)
    _, _, orders = template
    world[victim].fuse = fuse
    start_paying(world, orders)
    await world.quiet()
    world[victim].fuse = None
    died = await world.recover()
    found = adopted(world)
    await finish(world, orders, before)
    return died, found


@pytest.mark.parametrize(
    ("victim", "position"),
    [*(("B", position) for position in POSITIONS), ("A", "durable"), ("C", "one output")],
)
async def test_killed_at_any_commit_what_is_adopted_was_safe(template, tmp_path, victim, position):
    total = 0
    for commit in count():
        fuse, seed = Fuse(commit, POSITIONS[position]), f"{victim}{position}{commit}"
        try:
            died, found = await run(template, tmp_path / str(commit), victim, fuse, seed)
        except BaseException as error:
            error.add_note(f"{victim} killed at commit {commit}: {position}")
            raise
        total += found
        if not died:
            break
    assert commit > 10
    assert total or victim != "B", "some of these moments are quiet for one peer or the other"


PAYMENTS = st.tuples(st.sampled_from(["AB", "BA", "AC", "CA", "BC", "CB"]), st.integers(1, 20_000_000))
STEPS = st.lists(
    PAYMENTS
    | st.tuples(st.just("kill"), st.sampled_from("ABC"))
    | st.tuples(st.just("stop"), st.sampled_from("ABC"))
    | st.tuples(st.just("turns"), st.integers(1, MAX_TURNS))
    | st.tuples(st.just("sweep"), st.sampled_from("ABC")),
    min_size=3,
    max_size=12,
)


async def act(world, orders, what, which):
    match what:
        case "turns":
            for _ in range(which):
                await asyncio.sleep(0)
        case "kill" | "stop":
            await (world[which].stop() if what == "stop" else _kill(world[which]))
            await world[which].start()
        case "sweep":
            world[which].backend.checkpoints.sweep()
        case _:
            orders.append(await order(world, *what, which, True))
            start_paying(world, orders[-1:])


async def _kill(node):
    node.kill()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(1, 1 << 32))  # the template drew from 0, its preimages too
def test_whatever_happens_in_whatever_order_nothing_is_lost(template, tmp_path_factory, steps, seed):
    async def story():
        world, before = await begin(template, tmp_path_factory.mktemp("story"), seed=seed, drops=0.3)
        orders = []
        for step in steps:
            await act(world, orders, *step)
        await world.quiet()
        await world.recover()
        await finish(world, orders, before)

    asyncio.run(story())


# the rule

CHECKPOINT = Checkpoint("f1", 7, received=5, sent=3)
FITTING = HeldSession(7, b"\2" * 33, b"", "", sent=5, acked=5, received=3)
COUNTS = st.integers(0, 8)


def test_a_session_whose_counts_fit_goes_on():
    assert refusal(CHECKPOINT, "f1", FITTING) is None


@pytest.mark.parametrize(
    ("frontend", "number", "counts"),
    [
        ("f2", 7, (5, 5, 3)),  # another frontend's
        ("f1", 6, (5, 5, 3)),  # an older one of the same peer
        ("f1", 7, (5, 5, 2)),  # decided and stored, never sent
        ("f1", 7, (5, 5, 4)),  # sent, and not part of what is stored
        ("f1", 7, (6, 6, 3)),  # acknowledged, and not part of what is stored
        ("f1", 7, (4, 4, 3)),  # part of what is stored, and never handed over: not the same stream
    ],
)
def test_a_session_with_a_gap_does_not(frontend, number, counts):
    sent, acked, received = counts
    held = HeldSession(number, b"\2" * 33, b"", "", sent, acked, received)
    assert refusal(CHECKPOINT, frontend, held) is not None


@given(sent=COUNTS, acked=COUNTS, received=COUNTS)
def test_what_goes_on_lacks_nothing_and_repeats_nothing(sent, acked, received):
    """Every message of the peer's is either in the checkpoint or still held; every one to it was taken over."""
    if refusal(CHECKPOINT, "f1", HeldSession(7, b"\2" * 33, b"", "", sent, acked, received)) is not None:
        return
    still_held = set(range(acked + 1, sent + 1))
    in_checkpoint = set(range(1, CHECKPOINT.received + 1))
    assert still_held | in_checkpoint == set(range(1, sent + 1))
    assert received == CHECKPOINT.sent
