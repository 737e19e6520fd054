"""Nothing leaves before it is durable, and one file has one owner."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from node.backend.journal import Journal
from node.backend.sqlite_store import SqliteStore
from node.backend.store import COLUMNS, PUT_META, SCHEMA_VERSION, StoreAway, add, put
from node.errors import Ended, Refused


class InlineRuntime:
    """Blocking work happens at once, or, while `gate` is closed, once it opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    def monotonic(self):
        return 0.0

    async def run_blocking(self, lane, work):
        await self.gate.wait()
        return work()


class Recorder:
    """A store that writes down what it is asked to commit."""

    def __init__(self) -> None:
        self.log: list = []
        self.fail = False
        self.away = 0
        self.leading = [True]

    def commit(self, statements) -> None:
        if self.fail:
            raise sqlite3.OperationalError("disk I/O error")
        if self.away:
            self.away -= 1
            raise StoreAway("the database is away")
        self.log.append([(sql, list(rows)) for sql, rows in statements])

    def leads(self) -> bool:
        return self.leading.pop(0) if len(self.leading) > 1 else self.leading[0]


class Value:
    def __init__(self, text: str) -> None:
        self.text = text

    def statement(self):
        return "PUT", (self.text,)


@pytest.fixture
async def journal():
    runtime, store = InlineRuntime(), Recorder()
    journal = Journal(runtime, store)
    task = asyncio.create_task(journal.run())
    yield journal, store, runtime
    task.cancel()


async def test_store_then_send_then_publish_then_reply(journal) -> None:
    journal, store, _ = journal
    for name in ("reply", "publish", "send"):
        getattr(journal, name)(lambda name=name: store.log.append(name))
    journal.write("INSERT", 1)

    await journal.settled()

    assert store.log == [[("INSERT", [(1,)])], "send", "publish", "reply"]


async def test_what_is_decided_while_a_commit_runs_shares_the_next_one(journal) -> None:
    journal, store, runtime = journal
    value = Value("first")
    journal.store(value)
    runtime.gate.clear()
    await asyncio.sleep(0)  # the first transaction is on its way to the disk
    for number in range(3):
        value.text = f"change {number}"
        journal.store(value)
        journal.write("INSERT", number)
    runtime.gate.set()

    await journal.settled()

    assert store.log == [[("PUT", [("first",)])], [("INSERT", [(0,), (1,), (2,)]), ("PUT", [("change 2",)])]]


async def test_rows_keep_the_order_in_which_they_were_decided(journal) -> None:
    journal, store, _ = journal
    for sql, number in (("DELETE", 1), ("INSERT", 2), ("DELETE", 2)):
        journal.write(sql, number)

    await journal.settled()

    assert store.log == [[("DELETE", [(1,)]), ("INSERT", [(2,)]), ("DELETE", [(2,)])]]


async def test_a_hook_before_the_commit_is_still_part_of_it(journal) -> None:
    journal, store, _ = journal
    journal.before_commit(lambda: journal.write("SIGNED", 1))
    journal.write("UPDATE", 1)

    await journal.settled()

    assert store.log == [[("UPDATE", [(1,)]), ("SIGNED", [(1,)])]]


async def test_nothing_leaves_when_the_commit_fails() -> None:
    store = Recorder()
    store.fail = True
    journal = Journal(InlineRuntime(), store)
    journal.write("INSERT", 1)
    journal.send(lambda: store.log.append("send"))

    with pytest.raises(sqlite3.OperationalError):
        await journal.run()

    assert store.log == []


@pytest.fixture
def patient(monkeypatch):
    """No pause between two attempts."""
    monkeypatch.setattr("node.backend.journal.RETRY_S", 0)


async def test_a_database_that_is_away_gets_the_same_rows_again_and_nothing_leaves_meanwhile(
    journal, patient
) -> None:
    journal, store, _ = journal
    store.away = 3
    journal.write("INSERT", 1)
    journal.send(lambda: store.log.append("send"))
    while store.away:
        assert store.log == []
        await asyncio.sleep(0)

    await journal.settled()

    assert store.log == [[("INSERT", [(1,)])], "send"]


async def test_a_database_that_stays_away_ends_the_backend(patient, monkeypatch) -> None:
    monkeypatch.setattr("node.backend.journal.MAX_AWAY_S", 0)
    store = Recorder()
    store.away = 1_000
    journal = Journal(InlineRuntime(), store)
    journal.write("INSERT", 1)
    with pytest.raises(Ended, match="nothing is lost"):
        await journal.run()


async def test_what_is_stored_is_not_said_while_we_do_not_lead(journal, patient) -> None:
    """Also what needed no rows: the term is looked at before anything leaves."""
    journal, store, _ = journal
    store.leading = [False, False, False, True]
    journal.send(lambda: store.log.append(("send", len(store.leading))))

    await journal.settled()

    assert store.log == [("send", 1)]


async def test_a_discarded_value_is_not_written_again(journal) -> None:
    journal, store, _ = journal
    value = Value("gone")
    journal.store(value)
    journal.discard(value)
    journal.write("DELETE", 1)

    await journal.settled()

    assert store.log == [[("DELETE", [(1,)])]]


def test_a_transaction_is_whole_or_not_there(place) -> None:
    store = place.open()
    with pytest.raises(Exception, match="nowhere"):
        store.commit([(PUT_META, [("a", b"1")]), ("INSERT INTO nowhere VALUES (?)", [(1,)])])

    assert store.meta("a") is None
    store.commit([(PUT_META, [("a", b"1"), ("b", b"2")])])
    store.close()
    store = place.open()
    assert store.meta("b") == b"2"
    store.close()


def test_every_opening_is_a_new_term_and_transactions_are_counted_over_all(place) -> None:
    first = place.open()
    for number in range(3):
        first.commit([(PUT_META, [("epoch", first.epoch.to_bytes(8, "big")), ("x", bytes([number]))])])
    first.close()
    second = place.open()

    assert (first.epoch, first.found) == (1, (0, 0))
    assert (second.epoch, second.found) == (2, (1, 3))
    second.commit([(PUT_META, [("x", b"")])])
    assert second.position == (2, 4)
    second.close()


ROWS = {
    "meta": ("name", b"\0value"),
    "channels": (b"id", 1, b"\xffdata", 0),
    "revoked": (b"id", 1 << 47, b"data"),
    "forwards": (b"out", 1, b"in", (1 << 63) - 1, b"data"),
    "invoices": (b"hash", 1_760_000_000, b"data"),
    "payments": (b"hash", 1, b"data", 7),
    "payment_parts": (b"out", 0, b"hash", 3),
    "publishes": (b"txid", b"tx", "commitment"),
    "peers": (b"node", "[2001:db8::1]:9735"),
    "gossip": (1, b"key", 21_000_000 * 100_000_000, b"raw"),
    "sessions": (b"node", "f1", 1_760_000_000 << 24, 1 << 62, 3),
    "peer_terms": (b"id", b"\xffterms"),
}


@pytest.mark.parametrize("table", COLUMNS)
def test_a_row_comes_back_and_the_next_of_its_key_replaces_it(place, table) -> None:
    store, row, (columns, keys) = place.open(), ROWS[table], COLUMNS[table]
    last = row[-1]
    newer = (*row[:-1], last + 1 if isinstance(last, int) else last + last)
    names = " AND ".join(f"{column} = ?" for column in columns[:keys])
    query = f"SELECT {', '.join(columns)} FROM {table} WHERE {names}"

    store.commit([(add(table), [row]), (add(table), [newer])])
    assert store.rows(query, row[:keys]) == [row]
    store.commit([(put(table), [row, newer])])
    assert store.rows(query, row[:keys]) == [newer]
    store.close()


def test_the_same_batch_again_changes_nothing(place) -> None:
    """What a broken connection leaves open is settled by saying it again."""
    store = place.open()
    store.commit([(put("peers"), [(b"old", "x")])])
    batch = [
        ("DELETE FROM peers WHERE node_id = ?", [(b"old",)]),
        (put("peers"), [(b"a", "1"), (b"b", "2"), (b"a", "3")]),
        ("DELETE FROM peers WHERE node_id = ?", [(b"b",)]),
    ]
    for _ in range(2):
        store.commit(batch)
        assert store.rows("SELECT node_id, address FROM peers") == [(b"a", "3")]
    store.close()


def test_durability_is_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "x.sqlite")

    assert store.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.rows("PRAGMA synchronous") == [(2,)]  # FULL


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "x.sqlite")
    with pytest.raises(
        Refused, match=rf"x\.sqlite: another backend is running on it \(process {os.getpid()}\)"
    ):
        SqliteStore(tmp_path / "x.sqlite")
    first.commit([(PUT_META, [("it", b"still stores")])])
    first.close()
    SqliteStore(tmp_path / "x.sqlite").close()


def test_a_foreign_file_and_a_newer_schema_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"no database at all, but long enough to be read as one" * 20)
    with pytest.raises(Refused, match="is it no database"):
        SqliteStore(foreign)
    assert foreign.read_bytes().startswith(b"no database")

    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(Refused, match="start the newer release"):
        SqliteStore(newer)
