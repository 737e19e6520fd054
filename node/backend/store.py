"""The database: SQLite, write-ahead log, synchronous=FULL. Whoever commits here may speak; nobody before.

All of a turn's rows go in with one transaction (`commit`), which the journal runs off the loop. Reading happens at
the start, before anything else runs.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from node.errors import Refused

SCHEMA_VERSION = 1
NEXT_KEY_INDEX = "next_key_index"
LOCK_TIMEOUT_S = 1.0  # a backend that is just ending lets go sooner; another one never does

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE channels (
    channel_id BLOB PRIMARY KEY, key_index INTEGER NOT NULL UNIQUE, data BLOB NOT NULL, closed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE revoked (
    channel_id BLOB NOT NULL, commitment_number INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (channel_id, commitment_number)
) WITHOUT ROWID;
CREATE TABLE forwards (
    out_channel BLOB NOT NULL, out_id INTEGER NOT NULL, in_channel BLOB NOT NULL, in_id INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (out_channel, out_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX forwards_in ON forwards (in_channel, in_id);
CREATE TABLE invoices (payment_hash BLOB PRIMARY KEY, open_until_s INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX invoices_open ON invoices (open_until_s) WHERE open_until_s > 0;
CREATE TABLE payments (payment_hash BLOB PRIMARY KEY, running INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX payments_running ON payments (running) WHERE running = 1;
CREATE TABLE payment_parts (
    out_channel BLOB NOT NULL, out_id INTEGER NOT NULL, payment_hash BLOB NOT NULL, part_id INTEGER NOT NULL,
    PRIMARY KEY (out_channel, out_id)
) WITHOUT ROWID;
CREATE TABLE publishes (txid BLOB PRIMARY KEY, tx BLOB NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE peers (node_id BLOB PRIMARY KEY, address TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE gossip (kind INTEGER NOT NULL, key BLOB NOT NULL, number INTEGER NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (kind, key));
"""

Parameters = tuple[object, ...]


class ChannelRow(NamedTuple):
    channel_id: bytes
    key_index: int
    data: bytes


class Store:
    """One database file, held exclusively: a second backend on the same file is refused."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises Refused where the file is in use, of a newer release, or no database of ours."""
        self._path = path
        self._db = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self.commits = 0
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise Refused(
                f"{path}: {error}; is another backend running on it, or is it no database?"
            ) from error

    def _prepare(self) -> None:
        run = self._db.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0 and run("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            self._db.close()
            raise Refused(f"{self._path}: belongs to another program; name another data_dir")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")  # WAL with FULL syncs at every commit; never traded for speed
        run("PRAGMA wal_autocheckpoint=4000")  # 16 MB: checkpoints cost two more syncs each
        run("BEGIN EXCLUSIVE")
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in SCHEMA.split(";"):
                if statement.strip():
                    run(statement)
            run(f"PRAGMA user_version={SCHEMA_VERSION}")
        run("COMMIT")
        if version > SCHEMA_VERSION:
            self._db.close()
            raise Refused(
                f"{self._path}: has schema {version}, this release knows {SCHEMA_VERSION}; start the newer release"
            )

    def commit(self, statements: Iterable[tuple[str, list[Parameters]]]) -> None:
        """Run all statements in one transaction; returns once they are on the disk."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in statements:
                db.executemany(sql, rows)
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        self.commits += 1

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[object, ...]]:
        """Read; only while nothing is being committed (at the start), or from the committing thread."""
        return self._db.execute(sql, parameters).fetchall()

    def channels(self) -> list[ChannelRow]:
        """Every channel that is not history."""
        return [
            ChannelRow(*row)
            for row in self._db.execute("SELECT channel_id, key_index, data FROM channels WHERE closed = 0")
        ]

    def next_key_index(self) -> int:
        """A key index that no channel has had, closed and forgotten ones included."""
        return int.from_bytes(self.meta(NEXT_KEY_INDEX) or b"", "big")

    def meta(self, key: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        self._db.close()
