"""PostgreSQL: the same tables, one transaction a batch in one round trip, each within the term of our lease."""

from pathlib import Path

import psycopg

from node.backend import lease as leases
from node.backend.lease import Connection, Lease
from node.backend.store import SCHEMA, SCHEMA_VERSION, Parameters, Position, Statements, Store, StoreAway
from node.errors import Ended, Refused

TYPES = ((" BLOB", " BYTEA"), (" INTEGER", " BIGINT"), (" WITHOUT ROWID", ""))
VERSION_KEY = "schema"
CREATE_LOCK = 0x6C6E_6E6F  # so that two that start at once don't both create the tables
# Classes of errors after which the same may succeed: connection, a server that became a replica, conflict, resources
# (but no full disk), a lock, shutdown.
PASSING = ("08", "25", "40", "53", "55", "57")
DISK_FULL = "53100"


def prepare(url: str) -> bytes | None:
    """Create the tables where there are none; the id of the node whose database it is, None for a new one.

    Raises Refused for one that can't be used, psycopg's OperationalError where nobody answers.
    """
    with leases.connect(url, leases.LEASE_NAME) as db:
        if db.execute("SHOW fsync").fetchone() != ("on",):
            raise Refused(
                "database: the server runs with fsync=off and may lose what it confirmed; switch it on"
            )
        with db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (CREATE_LOCK,))
            (ours, theirs) = (
                db.execute("SELECT to_regclass('lease'), to_regclass('channels')").fetchone() or ()
            )
            if ours is None and theirs is not None:
                raise Refused("database: belongs to another program; name a database of its own")
            if ours is None:
                for statement in (*_schema(), leases.CREATE, leases.BEGIN, leases.CREATE_TURN):
                    db.execute(statement.encode())
                db.execute("INSERT INTO meta VALUES (%s, %s)", (VERSION_KEY, bytes([SCHEMA_VERSION])))
        _check_version(db)
        row = db.execute("SELECT value FROM meta WHERE key = 'node_id'").fetchone()
        return None if row is None else bytes(row[0])


def _schema() -> list[str]:
    text = SCHEMA
    for ours, theirs in TYPES:
        text = text.replace(ours, theirs)
    return text.split(";")


def _check_version(db: Connection) -> None:
    row = db.execute("SELECT value FROM meta WHERE key = %s", (VERSION_KEY,)).fetchone()
    version = 0 if row is None else int.from_bytes(row[0], "big")
    if version > SCHEMA_VERSION:
        raise Refused(
            f"database: has schema {version}, this release knows {SCHEMA_VERSION}; start the newer release"
        )
    assert version == SCHEMA_VERSION, "there has been no older one on PostgreSQL"


class PostgresStore(Store):
    """The database of a node whose lease is ours."""

    def __init__(self, url: str, lease: Lease) -> None:
        """`lease` has been taken."""
        self._url = url
        self._lease = lease
        self.epoch = lease.epoch
        self.found = Position(lease.found_epoch, lease.commits)
        self._known = lease.commits
        self._db: Connection | None = None

    def commit(self, statements: Statements) -> None:
        self._lease.holds()
        try:
            self._transaction(self._connected(), statements)
        except psycopg.Error as error:
            raise self._failure(error) from error
        self.commits += 1

    def _transaction(self, db: Connection, statements: Statements) -> None:
        """All of it is on its way before the first answer is waited for."""
        with db.pipeline(), db.transaction(), db.cursor() as cursor:
            turn = db.execute("SELECT lnnode_turn(%s, %s)", (self.epoch, self._known))
            for sql, rows in statements:
                query = sql.replace("?", "%s").encode()
                for row in rows:
                    cursor.execute(query, row)
        (self._known,) = turn.fetchone() or (self._known,)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[object, ...]]:
        try:
            return self._connected().execute(sql.replace("?", "%s").encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise self._failure(error) from error

    def _connected(self) -> Connection:
        if self._db is None or self._db.closed:
            self._db = leases.connect(self._url, leases.STORE_NAME)
        return self._db

    def _failure(self, error: psycopg.Error) -> Exception:
        """Our words for it; what is no fault of the database's stays what it is."""
        code, text = error.sqlstate or "", " ".join(str(error).split())
        if code == leases.TAKEN:
            return self._lease.lose(leases.taken_over(error.diag.message_primary or "somebody"))
        if code == leases.ROLLED_BACK:
            return self._lease.lose(
                "the database went back behind what it had confirmed (a restored backup, or a replica that lagged); "
                "put the newest copy back"
            )
        if code == DISK_FULL:
            return Ended(f"the database's disk is full: {text}; nothing is lost: make room, then start again")
        if code == leases.RUN_OUT:
            return StoreAway("the lease ran out while the database did not answer")
        if code.startswith(PASSING) or isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            self._disconnect()
            return StoreAway(f"database: {text}")
        return error

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def backup(self, target: Path) -> None:
        raise Refused(
            "PostgreSQL has its own tools for it: pg_basebackup with continuous archiving, or pg_dump"
        )

    def leads(self) -> bool:
        return self._lease.holds()

    @property
    def lease_left_s(self) -> float | None:
        return self._lease.left_s

    def close(self) -> None:
        self._disconnect()
        self._lease.release()
