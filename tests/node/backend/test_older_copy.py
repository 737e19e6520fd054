"""A backup that is put back is old: what was revoked since is never published, and nobody starts on it unawares."""

import asyncio
import sqlite3

import pytest
from backend_bench import Bench, FastStore, assert_agree
from test_held_sessions import lost, present

from node.backend.store import Position
from node.backend.watermark import Watermark
from node.channel import events as ev
from node.channel.model import Link, Phase
from node.crypto.hashes import sha256
from node.errors import Refused
from node.link import messages as lm
from node.wire import bolt1

NODE_ID = bytes(33)


def test_the_watermark_knows_an_older_copy_of_any_age(tmp_path):
    Watermark(tmp_path).check(Position(0, 0))
    Watermark(tmp_path).note(NODE_ID, Position(3, 700))
    for newer in (Position(3, 700), Position(3, 701), Position(4, 701)):
        Watermark(tmp_path).check(newer)
    # also one on which terms have begun since, without anything in them
    for older in (Position(3, 699), Position(2, 9_999), Position(0, 0), Position(9, 699)):
        with pytest.raises(Refused, match=r"older copy.*--accept-older-database"):
            Watermark(tmp_path).check(older)


def test_a_watermark_that_is_none_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "watermark").write_text("{")
    with pytest.raises(Refused, match="remove it if"):
        Watermark(tmp_path).check(Position(9, 9))


def as_snapshot(copy):
    """As if the file had been copied by other means than ours: nothing in it says so."""
    with sqlite3.connect(copy) as db:
        db.execute("DELETE FROM meta WHERE key = 'copy'")
    db.close()


class Restored:
    """A channel with Alice, and a copy of the database from before its last updates."""

    def __init__(self, bench, alice, copy):
        self.bench, self.alice, self.copy = bench, alice, copy

    async def start(self, **options):
        database = self.bench.directory / "db.sqlite"
        for path in self.bench.directory.glob("db.sqlite*"):
            path.unlink()
        database.write_bytes(self.copy.read_bytes())
        await self.bench.start(**options)

    @property
    def channel(self):
        return self.bench.record(self.alice).channel

    def published(self):
        rows = self.bench.backend.store.rows("SELECT why FROM publishes WHERE why != 'funding'")
        return [why for (why,) in rows] + [
            why for _, why, _ in self.bench.backend.chain._publishing.values() if why != "funding"
        ]


async def update(bench, alice, number=1):
    """One HTLC comes and goes: each side revokes two commitments."""
    add = ev.Add(99, 5_000_000, sha256(b"%d" % number), bench.chain.chain.height + 100, bytes(1366))
    alice.do(alice.half, add)
    await bench.settle()
    assert_agree(bench.record(alice), alice.half)


@pytest.fixture
async def restored(chain, tmp_path):
    bench = await Bench(tmp_path / "node", chain).start()
    alice = bench.peer("alice")
    await bench.connect(alice, bench.frontend())
    await bench.open_from(alice)
    await update(bench, alice)
    copy = tmp_path / "copy"
    done = await bench.backend.commands.backup(target=str(copy))
    assert done["commits"] > 0
    yield Restored(bench, alice, copy)
    if bench.runtime.tasks:
        await bench.drop()


async def test_an_older_copy_is_refused_with_a_warning(restored):
    bench, alice = restored.bench, restored.alice
    await update(bench, alice, 2)
    await bench.backend.stop()
    await bench.drop()
    as_snapshot(restored.copy)

    with pytest.raises(Refused, match="older copy") as refusal:
        await restored.start()
    assert "signed and revoked since" in str(refusal.value)


async def test_a_backup_is_taken_for_old_also_where_no_watermark_came_with_it(restored):
    """On a new host, and even if nothing has happened since: the file alone can't tell."""
    bench = restored.bench
    await bench.backend.stop()
    await bench.drop()
    (bench.directory / "watermark").unlink()

    with pytest.raises(Refused, match=r"is a backup.*--accept-older-database"):
        await restored.start()


async def test_a_lost_database_is_as_old_as_one_can_be(restored):
    bench = restored.bench
    await bench.backend.stop()
    await bench.drop()
    for path in bench.directory.glob("db.sqlite*"):
        path.unlink()
    with pytest.raises(Refused, match="older copy"):
        await bench.start()


async def test_accepted_nothing_is_published_and_the_peer_that_knows_more_is_asked_to_close(restored):
    bench, alice = restored.bench, restored.alice
    await update(bench, alice, 2)
    await bench.backend.stop()
    await bench.drop()
    await restored.start(accept_older=True)
    assert restored.channel.unproven
    assert restored.channel.local_commit.number < alice.channel.local_commit.number
    bench.chain.mine(1)
    await bench.settle()

    await bench.connect(alice, bench.frontend())
    await bench.settle()

    assert restored.channel.phase is Phase.DATA_LOSS
    assert restored.published() == []
    assert any(isinstance(m, bolt1.Error) and b"please close" in m.data for m in alice.heard)


async def test_what_was_accepted_is_still_unproven_after_a_crash_at_once(restored):
    bench = restored.bench
    await bench.backend.stop()
    await bench.drop()
    await restored.start(accept_older=True)
    await bench.drop()
    await bench.start()
    assert restored.channel.unproven


@pytest.mark.parametrize("lives", [1, 2])
async def test_accepted_no_session_goes_on_and_the_peer_has_to_show_where_it_stands(chain, tmp_path, lives):
    """Although the copy has a checkpoint that the counts fit."""
    bench = await Bench(tmp_path / "node", chain).start()
    held = await lost(bench)
    copy = tmp_path / "copy"
    await bench.backend.commands.backup(target=str(copy))
    with sqlite3.connect(copy) as db:
        assert db.execute("SELECT node_id FROM sessions").fetchall() == [(held.peer.node_id,)]
    db.close()
    held.peer.place = None  # what the peer knows is not touched
    await bench.drop()
    await Restored(bench, held.peer, copy).start(accept_older=True)
    for _ in range(lives - 1):
        await bench.drop()
        await bench.start()

    assert bench.backend.store.rows("SELECT * FROM sessions") == []
    assert (held.channel.link, held.channel.unproven) == (Link.OFFLINE, True)
    frontend = await present(held)
    assert [each.cause for each in frontend.heard(lm.CloseSession)] == ["not held"]
    assert not frontend.heard(lm.Adopted)
    await bench.drop()


async def test_accepted_a_command_to_close_by_force_leaves_that_to_the_peer(restored):
    bench, alice = restored.bench, restored.alice
    await update(bench, alice, 2)
    await bench.backend.stop()
    await bench.drop()
    await restored.start(accept_older=True)
    closing = asyncio.ensure_future(
        bench.backend.commands.forceclose(channel_id=restored.channel.channel_id.hex())
    )
    await bench.until(closing.done)

    assert restored.channel.phase is Phase.DATA_LOSS
    assert restored.published() == []


async def test_accepted_a_peer_that_knows_no_more_goes_on_as_before(restored):
    bench, alice = restored.bench, restored.alice
    await bench.backend.stop()
    await bench.drop()
    await restored.start(accept_older=True)
    assert restored.channel.unproven

    await bench.connect(alice, bench.frontend())
    await bench.settle()
    assert restored.channel.phase is Phase.NORMAL
    assert not restored.channel.unproven
    await update(bench, alice, 3)
    await bench.drop()
    await bench.start(accept_older=True)  # the new mark is that of the copy: the option means nothing more
    assert not restored.channel.unproven
    await bench.drop()


async def test_the_mark_is_kept_while_running_too(chain, tmp_path):
    """Killed, not stopped: what a copy lacks is known all the same, but for the last seconds."""
    bench = await Bench(tmp_path / "node", chain).start()
    copy = tmp_path / "copy"
    await bench.backend.commands.backup(target=str(copy))
    bench.backend.journal.write("DELETE FROM peers")
    await bench.settle()
    bench.backend._watermark.note(bench.backend.node_id, bench.backend.store.position)
    await bench.drop()
    for path in bench.directory.glob("db.sqlite*"):
        path.unlink()
    as_snapshot(copy)
    copy.rename(bench.directory / "db.sqlite")

    store = FastStore(bench.directory / "db.sqlite")
    with pytest.raises(Refused, match="older copy"):
        await bench.start(store)
    store.close()
