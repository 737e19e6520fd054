"""PostgreSQL: who does not lead stores nothing and says nothing, whatever its own clock or the network makes it believe."""

import asyncio
import threading

import pytest
from backend_bench import Bench, FastStore
from postgres_server import Server

from node.errors import Ended, Refused
from node.link.messages import Leaving, Welcome
from node.runtime.pulse import since_boot_s

psycopg = pytest.importorskip("psycopg")

from node.backend import lease as leases  # noqa: E402 - after the check that it can be
from node.backend.lease import Lease  # noqa: E402 - likewise
from node.backend.postgres_store import PostgresStore, prepare  # noqa: E402 - likewise
from node.backend.store import PUT_META, StoreAway  # noqa: E402 - likewise

LONG_S = 30.0
SHORT_S = 0.5


@pytest.fixture
def url(postgres):
    url = postgres.database()
    prepare(url)
    return url


def led(url, lease_s=LONG_S):
    lease = Lease(url, lease_s)
    assert lease.attempt() is None
    return PostgresStore(url, lease)


def put(store, value=b"x"):
    store.commit([(PUT_META, [("key", value)])])


def wait_until(condition, seconds=10):
    """Without sleeping: an event that nobody sets, waited for a moment at a time."""
    deadline_s, never = since_boot_s() + seconds, threading.Event()
    while not condition():
        assert since_boot_s() < deadline_s, "it never happened"
        never.wait(0.01)


def expire(postgres, url):
    """The database's clock says that the term is over."""
    postgres.execute("UPDATE lease SET until = clock_timestamp() - interval '1 second'", url)


def stop_renewing(store):
    store._lease._pulse.stop(1)


def test_one_leads_and_the_other_is_told_how_long_still(url):
    first, second = led(url), Lease(url, LONG_S)

    left_s = second.attempt()

    assert 0 < left_s <= LONG_S
    assert second.holder.rpartition(":")[2].isdigit()
    second.release()
    put(first)
    first.close()


def test_a_released_lease_is_taken_at_once(url):
    first, second = led(url), Lease(url, LONG_S)
    assert second.attempt() > 0
    waited = threading.Event()

    def wait():
        second.wait(LONG_S)
        waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    first.close()
    assert waited.wait(5), "the release is notified"
    thread.join()

    assert second.attempt() is None
    assert second.epoch == first.epoch + 1
    second.release()


def test_a_killed_leaders_term_runs_out(url):
    first, second = led(url, SHORT_S), Lease(url, SHORT_S)
    stop_renewing(first)  # as SIGKILL would
    began_s = since_boot_s()

    wait_until(lambda: second.attempt() is None, 2 * SHORT_S)

    assert since_boot_s() - began_s < 2 * SHORT_S
    second.release()
    first.close()


def test_a_lease_is_renewed_while_we_live(url):
    store = led(url, SHORT_S)
    end_s = since_boot_s() + 3 * SHORT_S

    wait_until(lambda: store.leads() and since_boot_s() > end_s)

    put(store)
    store.close()


def test_who_was_replaced_can_neither_store_nor_speak(url, postgres):
    old = led(url)
    put(old, b"before")
    stop_renewing(old)
    expire(postgres, url)
    new = led(url)

    assert old.leads(), "by its own clock the old one still leads, which is why every transaction asks"
    with pytest.raises(StoreAway):  # its connection was ended
        put(old, b"after")
    with pytest.raises(Ended, match="another backend took over"):
        put(old, b"after")
    with pytest.raises(Ended, match="--standby"):
        old.leads()
    assert new.meta("key") == b"before"
    put(new, b"new")
    old.close()
    assert new.leads(), "the old one's end releases nothing that is not its own"
    put(new)
    new.close()


def test_by_its_own_clock_it_falls_silent_before_the_database_lets_another_lead(url, postgres):
    store, other = led(url, 6 * SHORT_S), Lease(url, SHORT_S)
    assert other.attempt() > 0  # is connected, so that only the clocks are compared
    stop_renewing(store)

    wait_until(lambda: not store.leads())

    assert other.attempt() > 0
    other.release()
    store.close()


def test_a_term_that_ran_out_and_was_not_taken_goes_on(url, postgres):
    """The database was away for longer than a term, and nobody else was there."""
    store = led(url)
    put(store)
    expire(postgres, url)
    with pytest.raises(StoreAway, match="ran out"):
        put(store)

    store._lease._beat()

    put(store, b"again")
    assert store.leads()
    store.close()


def test_a_predecessor_that_hangs_in_a_transaction_does_not_hold_up_its_successor(url, postgres):
    old = led(url)
    hanging = leases.connect(url, leases.STORE_NAME)
    stop_renewing(old)
    hanging.execute("BEGIN")
    hanging.execute("SELECT lnnode_turn(%s, 0)", (old.epoch,))
    hanging.execute("INSERT INTO meta VALUES ('half', '')")
    # by the database's clock the row, as others see it, is over
    take = leases.TAKE.replace("until <= clock_timestamp()", "true")
    assert take != leases.TAKE
    other = leases.connect(url, leases.LEASE_NAME)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        other.execute(take, ("other", LONG_S))
    other.execute(leases.END_OTHERS, (leases.STORE_NAME,))
    assert other.execute(take, ("other", LONG_S)).fetchone() == (2, 0)

    with pytest.raises(psycopg.OperationalError):
        hanging.execute("COMMIT")
    assert other.execute("SELECT count(*) FROM meta WHERE key = 'half'").fetchone() == (0,)
    for connection in (hanging, other):
        connection.close()
    old.close()


def test_a_database_that_went_back_is_noticed_before_anything_is_stored(url, postgres):
    """A replica that lagged was made the primary: what it lacks, peers have already."""
    store = led(url)
    for _ in range(3):
        put(store)
    postgres.execute("UPDATE lease SET commits = commits - 1", url)

    with pytest.raises(Ended, match="went back"):
        put(store, b"later")
    assert store.meta("key") == b"x"
    store.close()


def test_a_broken_connection_is_made_anew_and_the_batch_said_again(url, postgres):
    store = led(url)
    put(store)
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{leases.STORE_NAME}'"
    )

    with pytest.raises(StoreAway):
        put(store, b"again")
    put(store, b"again")

    assert store.meta("key") == b"again"
    store.close()


def test_a_foreign_database_a_newer_schema_and_a_server_that_forgets_are_refused(postgres):
    foreign = postgres.database()
    postgres.execute("CREATE TABLE channels (song TEXT)", foreign)
    with pytest.raises(Refused, match="another program"):
        prepare(foreign)

    newer = postgres.database()
    prepare(newer)
    postgres.execute("UPDATE meta SET value = '\\x63' WHERE key = 'schema'", newer)
    with pytest.raises(Refused, match="start the newer release"):
        prepare(newer)


def test_the_servers_own_durability_settings_are_not_trusted(url, postgres):
    postgres.execute("ALTER ROLE lnnode SET synchronous_commit = off")
    try:
        store = led(url)
        assert store.rows("SHOW synchronous_commit") == [("on",)]
        store.close()
    finally:
        postgres.execute("ALTER ROLE lnnode RESET synchronous_commit")


@pytest.fixture
def own_server():
    server = Server()
    yield server
    server.end()


def test_what_a_server_confirmed_survives_the_loss_of_its_power(own_server):
    url = own_server.database()
    prepare(url)
    store = led(url)
    put(store, b"confirmed")
    own_server.stop("immediate")
    with pytest.raises(StoreAway):
        put(store, b"never confirmed")
    with pytest.raises(StoreAway):
        store.rows("SELECT 1")
    own_server.start()

    assert store.meta("key") == b"confirmed"
    put(store, b"later")
    store.close()


class Fenced(FastStore):
    """A store whose lease is as the test says."""

    leading = True

    def leads(self):
        return self.leading


class Away(FastStore):
    """Open, and then not to be reached."""

    away = False

    def commit(self, statements):
        if self.away:
            raise StoreAway("the database is away")
        super().commit(statements)


async def test_a_backend_that_is_to_stop_does_not_wait_for_a_database_that_is_away(
    chain, tmp_path, monkeypatch
):
    monkeypatch.setattr("node.backend.backend.STOP_TIMEOUT_S", 0.1)
    (tmp_path / "node").mkdir()
    store = Away(tmp_path / "node" / "db.sqlite")
    bench = await Bench(tmp_path / "node", chain).start(store)
    frontend, said = bench.frontend(protocol=2), []
    store.away = True
    bench.backend.journal.write("DELETE FROM peers")
    bench.backend.journal.send(lambda: said.append("something"))

    await asyncio.wait_for(bench.backend.stop(), 5)

    assert frontend.last(Leaving).returns
    assert said == []
    await bench.drop()


async def test_a_backend_that_does_not_lead_lets_its_frontends_go_and_ends_when_that_lasts(chain, tmp_path):
    """Also where nothing is to be stored, so that the database's silence would not be noticed otherwise."""
    (tmp_path / "node").mkdir()
    store = Fenced(tmp_path / "node" / "db.sqlite")
    bench = await Bench(tmp_path / "node", chain).start(store)
    frontend = bench.frontend()
    assert frontend.last(Welcome).epoch == 1
    store.leading = False

    bench.backend._look_at_lease()
    bench.backend.switchboard.beat()
    assert frontend.wire.closed
    assert not frontend.take()
    bench.runtime.time_s += 301
    with pytest.raises(Ended, match="is the database away"):
        bench.backend._look_at_lease()
    store.leading = True
    await bench.drop()
