"""The doctor's look at what a backend depends on: database, chain, clock, wallet, and the backend that runs."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator

from node.errors import Refused
from node.operations.finding import Finding, bad, good, warn
from node.runtime.config import BackendConfig
from node.runtime.release import release

MAX_CLOCK_AHEAD_S = 600  # of a block's time over ours: miners' clocks differ by less, on the whole
MAX_TIP_AGE_S = 3 * 3_600  # without a block on a public chain: either it is not synced or our clock is ahead
MAX_DATABASE_SKEW_S = 2.0
CHAIN_TIMEOUT_S = 5.0  # the client itself waits for as long as a bitcoind takes to load
TIME_AT, TIME_SIZE = 68, 4  # of a block's header


def database(config: BackendConfig, now_s: float) -> Iterator[Finding]:
    if config.database:
        yield from _postgres(config.database, now_s)
        return
    from node.backend.sqlite_store import DATABASE  # noqa: PLC0415 - only here

    path = config.directory / DATABASE
    if not path.exists():
        yield warn(f"database: {path} is not there", "right before the first start; else restore your backup")
        return
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)
        try:
            (answer,) = db.execute("PRAGMA quick_check").fetchone()
            epoch = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        if "locked" in str(error):
            yield good(f"database: {path} is held by a running backend; stop it to have its contents checked")
        else:
            yield bad(f"database: {path}: {error}", "restore your backup (docs/database.md)")
        return
    if answer == "ok":
        yield good(f"database: {path} is sound, term {int.from_bytes(epoch[0], 'big') if epoch else 0}")
    else:
        yield bad(f"database: {path}: {answer}", "do not start on it: restore your backup (docs/database.md)")


def _postgres(url: str, now_s: float) -> Iterator[Finding]:
    try:
        import psycopg  # noqa: PLC0415 - an extra
    except ImportError as error:
        yield bad(f"database: {error}", "pip install 'lnsim[postgres]'")
        return
    try:
        with psycopg.connect(url, connect_timeout=5) as db:
            row = db.execute(
                "SELECT extract(epoch FROM clock_timestamp()), current_setting('fsync')"
            ).fetchone()
    except psycopg.ProgrammingError:  # its text would show the password
        yield bad("database: is no connection URL", "say postgresql://USER@HOST/NAME")
        return
    except psycopg.Error as error:
        yield bad(
            f"database: {str(error).strip()}",
            "start PostgreSQL, let it listen here and this host in (docs/database.md, step 1), or mend `database`",
        )
        return
    assert row is not None, "a SELECT of constants has one row"
    skew_s = abs(float(row[0]) - now_s)
    if row[1] != "on":
        yield bad("database: fsync is off", "set fsync = on in postgresql.conf: money depends on it")
    if skew_s > MAX_DATABASE_SKEW_S:
        yield warn(f"clock: {skew_s:.1f} s from the database's", "run an NTP client on both hosts")
    else:
        yield good("database: PostgreSQL answers, and its clock is ours")


async def chain(config: BackendConfig, now_s: float) -> AsyncIterator[Finding]:
    from node.backend.identity import CHAIN_HASHES  # noqa: PLC0415 - a frontend never needs it
    from node.standalone import chain_client  # noqa: PLC0415 - as above

    client, http = chain_client(config.bitcoind)
    try:
        async with asyncio.timeout(CHAIN_TIMEOUT_S):
            tip = await client.best_block()
        (genesis,) = await client.block_hashes([0])
        block = await client.block(tip.hash)
        if genesis == CHAIN_HASHES[config.network]:
            yield good(f"chain: bitcoind is on {config.network}, block {tip.height}")
        else:
            yield bad(f"chain: bitcoind is not on {config.network}", "set network, or bitcoind.url")
        if block is not None:
            yield _clock(
                int.from_bytes(block[TIME_AT : TIME_AT + TIME_SIZE], "little") - now_s, config.network
            )
        balance_sat = await client.wallet_balance()
        yield good(f'wallet: "{config.bitcoind.wallet}" is loaded, {balance_sat} sat')
    except (Refused, TimeoutError) as error:
        yield bad(
            f"chain: {str(error) or 'no answer in time'}",
            "check bitcoind.url and its credentials; a wallet that is not there: bitcoin-cli createwallet NAME",
        )
    finally:
        await http.close()


def _clock(ahead_s: float, network: str) -> Finding:
    if ahead_s > MAX_CLOCK_AHEAD_S:
        return bad(
            f"clock: the last block is {ahead_s:.0f} s in our future", "set the clock: run an NTP client"
        )
    if network != "regtest" and -ahead_s > MAX_TIP_AGE_S:
        return warn(
            f"clock: the last block is {-ahead_s / 3_600:.1f} h old", "is bitcoind synced, the clock right?"
        )
    return good("clock: fits the last block's")


def running(config: BackendConfig) -> Iterator[Finding]:
    """What a backend that runs here says, where one does."""
    from node.runtime.api_client import NobodyAnswers, api_of, call  # noqa: PLC0415 - only here

    try:
        view = call(api_of(config), "cluster")
    except NobodyAnswers:
        yield good("no backend runs here now")
        return
    except Refused as error:
        yield bad(f"API: {error}", "does it run with this configuration?")
        return
    theirs, ours = view["backend"]["version"], release()
    if theirs != ours:
        yield warn(
            f"versions: the backend that runs is {theirs}, installed is {ours}", "restart it when it suits"
        )
    if view["backend"]["chain_trouble"]:
        yield bad(
            f"chain: {view['backend']['chain_trouble']}", "mend bitcoind: no channel is safe without it"
        )
    for each in view["frontends"]:
        if each["version"] != theirs:
            yield warn(
                f"versions: frontend {each['id']} runs {each['version']}, the backend {theirs}", "upgrade it"
            )
    yield good(f"a backend runs here, with {len(view['frontends'])} frontends")
