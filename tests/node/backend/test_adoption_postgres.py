"""The stories of `test_adoption` on PostgreSQL: whoever takes the lease next goes on with the sessions."""

import asyncio
from itertools import count

import pytest
from crash_world import Fragile, Fuse, on_sqlite
from test_adoption import adopted, begin, finish
from test_crash_boundaries import POSITIONS, build

psycopg = pytest.importorskip("psycopg")

from crash_payments import check_payments, start_paying  # noqa: E402 - after the check that it can be

from node.backend.lease import Lease  # noqa: E402 - likewise
from node.backend.postgres_store import PostgresStore, prepare  # noqa: E402 - likewise

LEASE_S = 30.0


class FragilePostgres(Fragile, PostgresStore):
    """On a server."""


def opener(url):
    """B is on the server, in all of its lives; its peers are not."""

    def opened(node, directory):
        if node.name != "B":
            return on_sqlite(node, directory)
        prepare(url)
        lease = Lease(url, LEASE_S)
        assert lease.attempt() is None
        return FragilePostgres(url, lease)

    return opened


@pytest.fixture(scope="module")
def template(postgres, tmp_path_factory):
    directory, url = tmp_path_factory.mktemp("template"), postgres.database()
    chain, orders, _ = asyncio.run(build(directory, opened=opener(url)))
    yield (directory, chain, orders), url.split("/")[3].partition("?")[0]
    chain.close()


async def world_of(postgres, template, directory, **options):
    source, database = template
    return await begin(source, directory, opened=opener(postgres.database(database)), **options)


async def test_idle_sessions_go_on_under_whoever_leads_next(postgres, template, tmp_path):
    world, before = await world_of(postgres, template, tmp_path, drops=0.5)
    for name in ("B", "A", "B", "C"):
        numbers = set(world[name].frontend.connections)
        epoch = world[name].backend.epoch
        world[name].kill()
        assert await world.recover()
        assert world[name].backend.epoch == epoch + 1
        assert set(world[name].frontend.connections) == numbers
    assert world.refused == []
    assert (adopted(world), world.sessions) == (6, 2)
    await finish(world, [], before)


async def test_a_planned_switch_under_load_closes_nothing(postgres, template, tmp_path):
    world, before = await world_of(postgres, template, tmp_path, seed=7)
    orders = template[0][2]
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


async def run(postgres, template, directory, fuse, seed):
    """One life and death among payments; whether B died at all, and how many sessions went on."""
    world, before = await world_of(postgres, template, directory, seed=seed, drops=0.3)
    orders = template[0][2]
    world["B"].fuse = fuse
    start_paying(world, orders)
    await world.quiet()
    world["B"].fuse = None
    died = await world.recover()
    found = adopted(world)
    await finish(world, orders, before)
    return died, found


@pytest.mark.parametrize("position", ["before", "durable"])
async def test_killed_at_many_commits_what_goes_on_was_safe(postgres, template, tmp_path, position):
    total = 0
    for commit in count(step=2):  # every one on SQLite; a database of its own for each takes a while
        fuse = Fuse(commit, POSITIONS[position])
        try:
            died, found = await run(postgres, template, tmp_path / str(commit), fuse, f"{position}{commit}")
        except BaseException as error:
            error.add_note(f"killed at commit {commit}: {position}")
            raise
        total += found
        if not died:
            break
    assert commit > 10
    assert total, "some of these moments are quiet for one peer or the other"
