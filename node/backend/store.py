"""The database as the backend sees it. Whoever commits here may speak; nobody before.

All of a turn's rows go in with one transaction (`commit`), which the journal runs off the loop. Reading happens at
the start, before anything else runs. The statements are such that SQLite and PostgreSQL understand both, and every
transaction can be repeated as a whole: it says what is to be, never by how much something changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from node.errors import Refused

SCHEMA_VERSION = 2
NEXT_KEY_INDEX = "next_key_index"
COPY = "copy"  # this database was made by `backup`

# Types by SQLite's names; `postgres_store` has its own for them.
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
CREATE TABLE payments (
    payment_hash BLOB PRIMARY KEY, running INTEGER NOT NULL, data BLOB NOT NULL, turn INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX payments_running ON payments (running) WHERE running = 1;
CREATE INDEX payments_turn ON payments (turn);
CREATE TABLE payment_parts (
    out_channel BLOB NOT NULL, out_id INTEGER NOT NULL, payment_hash BLOB NOT NULL, part_id INTEGER NOT NULL,
    PRIMARY KEY (out_channel, out_id)
) WITHOUT ROWID;
CREATE TABLE publishes (txid BLOB PRIMARY KEY, tx BLOB NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE peers (node_id BLOB PRIMARY KEY, address TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE gossip (kind INTEGER NOT NULL, key BLOB NOT NULL, number INTEGER NOT NULL, raw BLOB NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE sessions (
    node_id BLOB PRIMARY KEY, frontend_id TEXT NOT NULL, number INTEGER NOT NULL, received INTEGER NOT NULL, sent INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE peer_terms (channel_id BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID
"""

# Of each table the columns, and how many of them, from the first on, make up its key.
COLUMNS = {
    "meta": (("key", "value"), 1),
    "channels": (("channel_id", "key_index", "data", "closed"), 1),
    "revoked": (("channel_id", "commitment_number", "data"), 2),
    "forwards": (("out_channel", "out_id", "in_channel", "in_id", "data"), 2),
    "invoices": (("payment_hash", "open_until_s", "data"), 1),
    "payments": (("payment_hash", "running", "data", "turn"), 1),
    "payment_parts": (("out_channel", "out_id", "payment_hash", "part_id"), 2),
    "publishes": (("txid", "tx", "why"), 1),
    "peers": (("node_id", "address"), 1),
    "gossip": (("kind", "key", "number", "raw"), 2),
    "sessions": (("node_id", "frontend_id", "number", "received", "sent"), 1),
    "peer_terms": (("channel_id", "data"), 1),
}

Parameters = tuple[object, ...]
Statements = Sequence[tuple[str, list[Parameters]]]


class ChannelRow(NamedTuple):
    channel_id: bytes
    key_index: int
    data: bytes


class Position(NamedTuple):
    """How far a database has come: terms of leadership, and transactions of all of them."""

    epoch: int
    commits: int


class StoreAway(Refused):
    """The database does not answer, or our lease has to be renewed first; nothing says that it stays so."""


def put(table: str) -> str:
    """A row of these values, in place of the one with its key."""
    columns, keys = COLUMNS[table]
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns[keys:])
    return f"{_insert(table)} ON CONFLICT ({', '.join(columns[:keys])}) DO UPDATE SET {changes}"


def add(table: str) -> str:
    """A row of these values, unless there is one with its key."""
    return f"{_insert(table)} ON CONFLICT DO NOTHING"


def _insert(table: str) -> str:
    columns, _ = COLUMNS[table]
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names of tables and columns, all ours


PUT_META = put("meta")


class Store(ABC):
    """An open database that is ours alone for the term `epoch`."""

    epoch: int
    found: Position  # what it held when it was opened
    commits = 0  # of this term

    @abstractmethod
    def commit(self, statements: Statements) -> None:
        """Run all statements in one transaction; returns once they are durable.

        Raises StoreAway where the same transaction may be tried again, Ended where it never will be.
        """

    @abstractmethod
    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[object, ...]]:
        """Read; only while nothing is being committed (at the start), or from the committing thread."""

    @abstractmethod
    def backup(self, target: Path) -> None:
        """Write a copy that is consistent in itself, while commits go on. From a thread of its own; raises Refused."""

    @abstractmethod
    def leads(self) -> bool:
        """Whether what was committed may be said, at this moment. Raises Ended once another backend took over."""

    @property
    def lease_left_s(self) -> float | None:
        """For how long we may still speak if no renewal comes through; None where nobody else can lead."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go; another backend may begin at once."""

    @property
    def position(self) -> Position:
        """What is durable so far."""
        return Position(self.epoch, self.found.commits + self.commits)

    def channels(self) -> list[ChannelRow]:
        """Every channel that is not history."""
        found = []
        for channel_id, key_index, data in self.rows(
            "SELECT channel_id, key_index, data FROM channels WHERE closed = 0"
        ):
            assert isinstance(channel_id, bytes)
            assert isinstance(key_index, int)
            assert isinstance(data, bytes)
            found.append(ChannelRow(channel_id, key_index, data))
        return found

    def next_key_index(self) -> int:
        """A key index that no channel has had, closed and forgotten ones included."""
        return int.from_bytes(self.meta(NEXT_KEY_INDEX) or b"", "big")

    def meta(self, key: str) -> bytes | None:
        rows = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        if not rows:
            return None
        value = rows[0][0]
        assert isinstance(value, bytes)
        return value
