"""Leadership in PostgreSQL: one row says whose term it is and, by the database's clock, until when.

Every transaction of the store checks the row and locks it (`turn`), so none is committed outside of its term. What
may be said between two transactions is bounded by a deadline of our own clock that is never later than the row's.
"""

import os

import psycopg
from psycopg.rows import TupleRow

from node.errors import Ended, Refused
from node.runtime.pulse import Pulse, since_boot_s

RENEW_SHARE = 1 / 3  # of the period: two renewals may fail before the term is in danger
MARGIN_SHARE = 1 / 10  # of the period: what two clocks may differ in their speed, many times over
RETRY_SHARE = 1 / 20
MAX_STALL_S = 30.0  # of our loop: a process that hangs must not lead for ever
CONNECT_TIMEOUT_S = 3
LOCK_TIMEOUT_MS = 2_000
CHANNEL = "lnnode_lease"
STORE_NAME, LEASE_NAME = "lnnode store", "lnnode lease"

CREATE = """
CREATE TABLE lease (
    one BOOLEAN PRIMARY KEY CHECK (one), epoch BIGINT NOT NULL, holder TEXT NOT NULL,
    until TIMESTAMPTZ NOT NULL, commits BIGINT NOT NULL
)
"""
BEGIN = "INSERT INTO lease VALUES (true, 0, '', TIMESTAMPTZ '2000-01-01', 0)"
# The first statement of every transaction: where it fails, all the others do.
CREATE_TURN = """
CREATE FUNCTION lnnode_turn(mine BIGINT, known BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE seen lease%ROWTYPE;
BEGIN
    UPDATE lease SET commits = commits + 1
    WHERE epoch = mine AND commits >= known AND until > clock_timestamp() RETURNING * INTO seen;
    IF FOUND THEN RETURN seen.commits; END IF;
    SELECT * INTO seen FROM lease;
    IF seen.epoch > mine THEN RAISE EXCEPTION '%', seen.holder USING ERRCODE = 'LN001'; END IF;
    IF seen.epoch < mine OR seen.commits < known THEN RAISE EXCEPTION 'went back' USING ERRCODE = 'LN002'; END IF;
    RAISE EXCEPTION 'run out' USING ERRCODE = 'LN003';
END $$
"""
TAKEN, ROLLED_BACK, RUN_OUT = "LN001", "LN002", "LN003"

READ = "SELECT epoch, commits, holder, extract(epoch FROM until - clock_timestamp())::float8 FROM lease"
# Of a predecessor that hangs in the middle of a transaction: it would keep the row locked.
END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = %s AND datname = current_database() AND usename = current_user"
)
TAKE = (
    "UPDATE lease SET epoch = epoch + 1, holder = %s, until = clock_timestamp() + make_interval(secs => %s) "
    "WHERE until <= clock_timestamp() RETURNING epoch, commits"
)
# Also once it has run out, as long as nobody took over: the row is locked, so one of the two is first.
RENEW = (
    "UPDATE lease SET until = clock_timestamp() + make_interval(secs => %s) WHERE epoch = %s AND holder = %s"
)
RELEASE = "UPDATE lease SET until = clock_timestamp() WHERE epoch = %s AND holder = %s"

Connection = psycopg.Connection[TupleRow]


def connect(url: str, name: str) -> Connection:
    """Durable whatever the server's default is, and never waiting for ever for a host that is gone."""
    connection = psycopg.connect(
        url,
        autocommit=True,
        application_name=name,
        connect_timeout=CONNECT_TIMEOUT_S,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
    )
    connection.execute("SET synchronous_commit = on")
    connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
    return connection


class Lease:
    """Ours or not; taken and kept over a connection and a thread of its own."""

    def __init__(self, url: str, period_s: float) -> None:
        self._url = url
        self._period_s = period_s
        self._name = f"{os.uname().nodename}:{os.getpid()}"
        self._connection: Connection | None = None
        self._pulse: Pulse | None = None
        self._deadline_s = 0.0
        self._lost = ""
        self._looked_s: float | None = None
        self.epoch = 0
        self.found_epoch = 0
        self.commits = 0
        self.holder = ""

    # taking it

    def attempt(self) -> float | None:
        """Take it if it is free: None. Otherwise the seconds that its holder's term lasts still.

        Raises psycopg's errors where the database does not answer.
        """
        connection, asked_s = self._connected(), since_boot_s()
        row = connection.execute(READ).fetchone()
        assert row is not None, "the schema has one row"
        self.found_epoch, _, self.holder, left_s = row
        if left_s > 0:
            return float(left_s)
        connection.execute(END_OTHERS, (STORE_NAME,))
        taken = connection.execute(TAKE, (self._name, self._period_s)).fetchone()
        if taken is None:
            return 0.0  # somebody was faster
        self.epoch, self.commits = taken
        self._extend(asked_s)
        self._pulse = Pulse("lease", self._beat)
        return None

    def wait(self, seconds: float) -> None:
        """Until the holder lets go, or so long."""
        for _ in self._connected().notifies(timeout=seconds, stop_after=1):
            return

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, LEASE_NAME)
            self._connection.execute(f"LISTEN {CHANNEL}")
        return self._connection

    def disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # keeping it

    def holds(self) -> bool:
        """Whether it is ours now, by our own clock. Raises Ended once another backend has taken it."""
        if self._lost:
            raise Ended(self._lost)
        self._looked_s = since_boot_s()
        return self._looked_s < self._deadline_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._deadline_s - since_boot_s())

    def lose(self, why: str) -> Ended:
        """It will not come back in this life."""
        self._lost = self._lost or why
        self._deadline_s = 0.0
        return Ended(self._lost)

    def _extend(self, asked_s: float) -> None:
        """The database counts from a moment after `asked_s`, so this deadline is the earlier one."""
        self._deadline_s = asked_s + self._period_s * (1 - MARGIN_SHARE)

    def _beat(self) -> float | None:
        """Renew; the pause until the next time."""
        asked_s = since_boot_s()
        if self._looked_s is not None and asked_s - self._looked_s > MAX_STALL_S:
            return self._period_s * RENEW_SHARE
        try:
            renewed = self._connected().execute(RENEW, (self._period_s, self.epoch, self._name)).rowcount
            if not renewed:
                row = self._connected().execute(READ).fetchone()
                assert row is not None, "the schema has one row"
                self.lose(taken_over(row[2]))
                return None
        except psycopg.Error:
            self.disconnect()  # the store says what is the matter
            return self._period_s * RETRY_SHARE
        self._extend(asked_s)
        return self._period_s * RENEW_SHARE

    def release(self) -> None:
        """Let go, and say so to whoever waits."""
        if self._pulse is not None:
            self._pulse.stop(CONNECT_TIMEOUT_S)
        self._deadline_s = 0.0
        try:
            if self.epoch and not self._lost:
                self._connected().execute(RELEASE, (self.epoch, self._name))
                self._connected().execute(f"NOTIFY {CHANNEL}")
        except psycopg.Error:
            self._lost = "the lease ran out"  # it does so by itself
        self.disconnect()


def taken_over(holder: str) -> str:
    return f"{holder} leads now: another backend took over; started again with --standby this one waits for its turn"


def refusal(error: psycopg.Error) -> Refused:
    """What an operator can mend about a database that can't be used."""
    return Refused(f"database: {' '.join(str(error).split())}; check the setting `database` and the server")
