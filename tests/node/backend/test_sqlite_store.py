"""What only a database in a file can meet: an older schema, a full disk, a copy taken while it is written."""

import os
import sqlite3
import subprocess
import threading
from contextlib import suppress

import pytest
from backend_bench import Bench

from node.backend.identity import load_seed, write_durably
from node.backend.sqlite_store import SqliteStore
from node.backend.store import PUT_META, Position, put
from node.backend.watermark import Watermark
from node.errors import Ended, Refused

# The first schema, as released; what differs from today's.
PAYMENTS_1 = (
    "CREATE TABLE payments (payment_hash BLOB PRIMARY KEY, running INTEGER NOT NULL, data BLOB NOT NULL)"
)


def test_an_older_schema_is_migrated_with_all_that_is_in_it(tmp_path):
    path = tmp_path / "x.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        for table in ("payments", "sessions", "peer_terms"):
            db.execute(f"DROP TABLE {table}")
        db.execute(PAYMENTS_1)
        db.execute("CREATE INDEX payments_running ON payments (running) WHERE running = 1")
        db.executemany("INSERT INTO payments VALUES (?, 1, ?)", [(b"first", b"1"), (b"second", b"2")])
        db.execute("PRAGMA user_version=1")
    db.close()

    store = SqliteStore(path)

    assert store.rows("SELECT data FROM payments ORDER BY turn DESC") == [(b"2",), (b"1",)]
    store.commit([(put("payments"), [(b"first", 0, b"3", 9)])])
    store.close()
    store = SqliteStore(path)
    assert store.rows("SELECT data FROM payments ORDER BY turn DESC") == [(b"3",), (b"2",)]
    fresh = SqliteStore(tmp_path / "fresh.sqlite")
    assert layout(store) == layout(fresh)
    for each in (store, fresh):
        each.close()


def layout(store):
    """Of each table and index the columns, their types and keys."""
    names = store.rows("SELECT type, name FROM sqlite_master ORDER BY name")
    return {each: store.rows(f"PRAGMA {each[0]}_xinfo({each[1]})") for each in names}


def test_a_backup_while_commits_go_on_is_whole(tmp_path):
    """Both rows of a pair are changed by every transaction: a copy that tore one apart would show."""
    store = SqliteStore(tmp_path / "x.sqlite")
    filler = [(b"%d" % n, bytes(2_000)) for n in range(10_000)]
    store.commit([(put("publishes"), [(name, data, "filler") for name, data in filler])])
    done = threading.Event()
    failures = []

    def back_up():
        try:
            store.backup(tmp_path / "copy")
        except (Refused, sqlite3.Error) as error:
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=back_up)
    thread.start()
    commits = 0
    while not done.is_set() or commits < 3:
        commits += 1
        value = commits.to_bytes(8, "big")
        store.commit([(PUT_META, [("a", value), ("b", value)])])
    thread.join()
    assert not failures
    store.close()

    copy = SqliteStore(tmp_path / "copy")
    assert copy.meta("a") == copy.meta("b")
    assert copy.rows("PRAGMA integrity_check") == [("ok",)]
    assert copy.rows("SELECT count(*) FROM publishes") == [(10_000,)]
    assert 1 <= copy.found.commits <= commits + 1
    copy.close()
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0, "it holds all that an attacker needs to know"


def test_a_backup_never_replaces_a_file_and_leaves_nothing_half_done(tmp_path):
    store = SqliteStore(tmp_path / "x.sqlite")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(Refused, match="exists"):
        store.backup(tmp_path / "there")
    with pytest.raises(Refused, match="No such file"):
        store.backup(tmp_path / "nowhere" / "copy")
    assert (tmp_path / "there").read_text() == "mine"
    store.close()


def test_a_file_that_may_not_grow_is_a_full_disk_too(tmp_path):
    """Where no file system can be mounted, this much is still tested."""
    store = SqliteStore(tmp_path / "x.sqlite")
    store._db.execute("PRAGMA max_page_count=60")
    with pytest.raises(Ended, match="make room"):
        store.commit([(put("publishes"), [(b"x", bytes(1_000_000), "")])])
    store.commit([(put("publishes"), [(b"y", b"", "")])])
    assert store.rows("SELECT txid FROM publishes") == [(b"y",)]
    store.close()


PAGE = 4_096


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; one has to be root to make it."""
    directory = tmp_path / "small"
    directory.mkdir()
    if os.getuid() != 0:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up("a small disk: only root can mount one")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", directory]
    made = subprocess.run(mount, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk: {made.stderr.strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_a_full_disk_loses_nothing_and_says_what_to_do(small_disk):
    store = SqliteStore(small_disk / "x.sqlite")
    number = 0
    with pytest.raises(Ended, match="disk is full"):  # noqa: PT012 - the loop is what fills it
        while True:
            store.commit(
                [
                    (put("publishes"), [(b"%d" % number, bytes(100_000), "")]),
                    (PUT_META, [("n", b"%d" % number)]),
                ]
            )
            number += 1
    assert number > 10
    assert store.meta("n") == b"%d" % (number - 1)
    store.close()

    (small_disk / "ballast").write_bytes(b"")
    store = SqliteStore(small_disk / "x.sqlite")
    assert store.rows("SELECT count(*) FROM publishes") == [(number,)]
    assert store.meta("n") == b"%d" % (number - 1)
    store.close()


async def test_a_backend_whose_disk_is_full_ends_without_having_said_what_it_could_not_store(
    chain, small_disk
):
    bench = await Bench(small_disk / "node", chain).start()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):  # noqa: PT012 - the loop is what fills it
        while True:
            file.write(bytes(4_096))
    said = []
    bench.backend.journal.write(put("publishes"), b"x", bytes(1_000_000), "")
    bench.backend.journal.send(lambda: said.append("something"))
    await bench.settle()

    (failure,) = bench.runtime.failures
    assert isinstance(failure, Ended)
    assert "make room" in str(failure)
    assert said == []
    await bench.backend.stop()  # as a process does: this must not hide why it ends
    await bench.drop()
    ballast.unlink()
    await bench.start()
    assert bench.backend.store.rows("SELECT count(*) FROM publishes") == [(0,)]
    await bench.drop()


def fill(directory, *, free_pages: int) -> None:
    """Leaves so many pages of 4 kB."""
    with (directory / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    os.truncate(directory / "ballast", (directory / "ballast").stat().st_size - free_pages * PAGE)


@pytest.mark.parametrize("free_pages", [0, 1, 2])
def test_a_file_that_does_not_fit_leaves_the_one_before(small_disk, free_pages):
    """The kernel may also write a part, and say so by its count alone."""
    path = small_disk / "file"
    write_durably(path, b"before")
    fill(small_disk, free_pages=free_pages)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, bytes(3 * PAGE))
    assert path.read_bytes() == b"before"


def test_a_note_that_does_not_fit_says_so_and_the_older_one_stays(small_disk):
    mark = Watermark(small_disk)
    mark.note(bytes(33), Position(1, 1))
    fill(small_disk, free_pages=0)
    with pytest.raises(Ended, match=r"watermark: No space left on device; nothing is lost: make room"):
        mark.note(bytes(33), Position(1, 2))
    Watermark(small_disk).check(Position(1, 1))


def test_a_seed_that_does_not_fit_is_refused(small_disk):
    fill(small_disk, free_pages=0)
    with pytest.raises(Refused, match="seed: No space left on device; make room"):
        load_seed(small_disk, bytes(32), first=True)
    assert not (small_disk / "seed").exists()
