"""DESIGN 9.2 on PostgreSQL: the story of `test_crash`, with the power cut before and after each commit."""

import asyncio
import shutil

import pytest
from backend_bench import Bench
from test_crash import Doomed, Story, told

psycopg = pytest.importorskip("psycopg")

from node.backend.lease import Lease  # noqa: E402 - after the check that it can be
from node.backend.postgres_store import PostgresStore, prepare  # noqa: E402 - likewise

LEASE_S = 30.0


class DoomedPostgres(Doomed, PostgresStore):
    """On a server."""


def opened(url, kind=PostgresStore):
    prepare(url)
    lease = Lease(url, LEASE_S)
    assert lease.attempt() is None
    return kind(url, lease)


@pytest.fixture(scope="module")
def start(chain, postgres, tmp_path_factory):
    """Two channels, ready: what each run begins with."""
    directory, url = tmp_path_factory.mktemp("start") / "node", postgres.database()

    async def make():
        bench = await Bench(directory, chain).start(opened(url))
        alice, bob = bench.peer("alice"), bench.peer("bob")
        frontend = bench.frontend()
        for peer in (alice, bob):
            await bench.connect(peer, frontend)
        await bench.open_from(alice)
        await bench.open_to(bob)
        await bench.drop()
        return alice.snapshot(), bob.snapshot()

    snapshots = asyncio.run(make())
    return directory, url.split("/")[3].partition("?")[0], snapshots


async def run(chain, postgres, start, directory, moment, count) -> bool:
    """Whether the power was cut: otherwise the story has fewer commits."""
    shutil.copytree(start[0], directory)
    url = postgres.database(template=start[1])
    bench = Bench(directory, chain)
    store = opened(url, DoomedPostgres)
    await bench.start(store)
    story = Story(bench, start[2])
    await story.connect()
    store.left, store.before = count, moment == "before a commit"
    return await told(bench, story, lambda: bench.start(opened(url)))


@pytest.mark.parametrize("moment", ["before a commit", "after a commit"])
async def test_killed_at_any_commit_nothing_is_lost_or_paid_twice(chain, postgres, start, tmp_path, moment):
    count = 1
    while await run(chain, postgres, start, tmp_path / str(count), moment, count):
        count += 1
    assert count > 5, "the story has that many commits"
