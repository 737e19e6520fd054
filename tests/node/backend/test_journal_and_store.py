"""Nothing leaves before it is durable, and one file has one owner."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from node.backend.journal import Journal
from node.backend.store import SCHEMA_VERSION, Store
from node.errors import Refused


class InlineRuntime:
    """Blocking work happens at once, or, while `gate` is closed, once it opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    async def run_blocking(self, lane, work):
        await self.gate.wait()
        return work()


class Recorder:
    """A store that writes down what it is asked to commit."""

    def __init__(self) -> None:
        self.log: list = []
        self.fail = False

    def commit(self, statements) -> None:
        if self.fail:
            raise sqlite3.OperationalError("disk I/O error")
        self.log.append([(sql, list(rows)) for sql, rows in statements])


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


async def test_a_discarded_value_is_not_written_again(journal) -> None:
    journal, store, _ = journal
    value = Value("gone")
    journal.store(value)
    journal.discard(value)
    journal.write("DELETE", 1)

    await journal.settled()

    assert store.log == [[("DELETE", [(1,)])]]


def test_a_transaction_is_whole_or_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite")
    put = "INSERT INTO meta VALUES (?, ?)"
    with pytest.raises(sqlite3.Error):
        store.commit([(put, [("a", b"1")]), ("INSERT INTO nowhere VALUES (?)", [(1,)])])

    assert store.meta("a") is None
    store.commit([(put, [("a", b"1"), ("b", b"2")])])
    store.close()
    assert Store(tmp_path / "x.sqlite").meta("b") == b"2"


def test_durability_is_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.sqlite")

    assert store.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.rows("PRAGMA synchronous") == [(2,)]  # FULL


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    first = Store(tmp_path / "x.sqlite")
    with pytest.raises(Refused, match="another backend"):
        Store(tmp_path / "x.sqlite")
    first.close()
    Store(tmp_path / "x.sqlite").close()


def test_a_foreign_file_and_a_newer_schema_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"no database at all, but long enough to be read as one" * 20)
    with pytest.raises(Refused, match="is it no database"):
        Store(foreign)
    assert foreign.read_bytes().startswith(b"no database")

    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(Refused, match="start the newer release"):
        Store(newer)
