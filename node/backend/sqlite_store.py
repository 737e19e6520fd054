"""SQLite: write-ahead log, synchronous=FULL, one file that one backend holds."""

import os
import sqlite3
from pathlib import Path

from node.backend.store import COPY, PUT_META, SCHEMA, SCHEMA_VERSION, Parameters, Position, Statements, Store
from node.errors import Ended, Refused

DATABASE = "lnnode.sqlite"  # in the data_dir
LOCKS = Path("/proc/locks")
LOCK_TIMEOUT_S = 1.0  # a backend that is just ending lets go sooner; another one never does
BACKUP_PAGES = 256  # a megabyte at a time: a commit waits for one such step, about a millisecond
BACKUP_PAUSE_S = 0.005  # while a commit is under way
EPOCH, COMMITS = "epoch", "commits"

# What makes of each older schema the next one.
MIGRATIONS = {
    1: (
        "ALTER TABLE payments ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
        "UPDATE payments SET turn = rowid",
        "CREATE INDEX payments_turn ON payments (turn)",
        (
            "CREATE TABLE sessions (node_id BLOB PRIMARY KEY, frontend_id TEXT NOT NULL, number INTEGER NOT NULL, "
            "received INTEGER NOT NULL, sent INTEGER NOT NULL) WITHOUT ROWID"
        ),
        "CREATE TABLE peer_terms (channel_id BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID",
    ),
}


class SqliteStore(Store):
    """One database file, held exclusively: a second backend on the same file is refused."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises Refused where the file is in use, of a newer release, or no database of ours."""
        self._path = path
        self._db = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            self._prepare()
            self.found = Position(self._number(EPOCH), self._number(COMMITS))
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise _refusal(path, error) from error
        except Refused:
            self._db.close()
            raise
        self.epoch = self.found.epoch + 1

    def _prepare(self) -> None:
        run = self._db.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        (version,) = run("PRAGMA user_version").fetchone()
        if version == 0 and run("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise Refused(f"{self._path}: belongs to another program; name another data_dir")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")  # WAL with FULL syncs at every commit; never traded for speed
        run("PRAGMA wal_autocheckpoint=4000")  # 16 MB: checkpoints cost two more syncs each
        run("BEGIN EXCLUSIVE")
        (version,) = run("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Refused(
                f"{self._path}: has schema {version}, this release knows {SCHEMA_VERSION}; start the newer release"
            )
        for statement in _missing(version):
            run(statement)
        run(f"PRAGMA user_version={SCHEMA_VERSION}")
        run("COMMIT")

    def commit(self, statements: Statements) -> None:
        db = self._db
        position = self.position.commits + 1
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                for sql, rows in statements:
                    db.executemany(sql, rows)
                db.execute(PUT_META, (COMMITS, position.to_bytes(8, "big")))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk has rolled it back already
                    db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise Ended(_full(self._path)) from error
            raise
        self.commits += 1

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[object, ...]]:
        return self._db.execute(sql, parameters).fetchall()

    def _number(self, key: str) -> int:
        return int.from_bytes(self.meta(key) or b"", "big")

    def backup(self, target: Path) -> None:
        if target.exists():
            raise Refused(f"{target}: exists; name a new file")
        draft = target.with_name(target.name + ".partial")
        draft.unlink(missing_ok=True)
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.close(handle)
            copy = sqlite3.connect(draft, check_same_thread=False)
            try:
                # Of one connection with the commits: what they change meanwhile, the copy gets too.
                self._db.backup(copy, pages=BACKUP_PAGES, sleep=BACKUP_PAUSE_S)
                copy.execute(PUT_META, (COPY, b"\1"))
                copy.commit()
            finally:
                copy.close()
            sync(draft)
            draft.rename(target)
            sync(target.parent)
        except (OSError, sqlite3.Error) as error:
            draft.unlink(missing_ok=True)
            raise Refused(f"{target}: {error}; nothing was left there") from error

    def leads(self) -> bool:
        return True  # the file is locked for as long as we live

    def close(self) -> None:
        self._db.close()


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _missing(version: int) -> list[str]:
    """The statements that lead from a schema to today's."""
    if version == 0:
        return SCHEMA.split(";")
    return [statement for old in range(version, SCHEMA_VERSION) for statement in MIGRATIONS[old]]


def _refusal(path: Path, error: sqlite3.DatabaseError) -> Refused:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Refused(
            f"{path}: another backend is running on it{_holder(path)}; stop that one first, or give this one a "
            "data_dir of its own"
        )
    if code == sqlite3.SQLITE_FULL:
        return Refused(_full(path))
    return Refused(f"{path}: {error}; is it no database?")


def _holder(path: Path) -> str:
    """Who locked the file, where the kernel says so (Linux: proc(5), locks). A look at it through a handle of our own
    would, in the process that holds the lock, release it.
    """
    try:
        number = str(path.stat().st_ino)
        lines = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return ""
    pids = [line[4] for line in lines if len(line) > 5 and line[5].rpartition(":")[2] == number]
    return f" (process {pids[0]})" if pids else ""


def _full(path: Path) -> str:
    return f"{path}: the disk is full; nothing is lost: make room, then start the backend again"
