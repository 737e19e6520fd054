"""How a backend on PostgreSQL comes to lead: at once, or once whoever leads stops or dies."""

import asyncio

import psycopg
from psycopg.conninfo import conninfo_to_dict

from node.backend import identity
from node.backend.lease import Lease, refusal
from node.backend.postgres_store import PostgresStore, prepare
from node.crypto.derivation import node_secret
from node.crypto.keys import public_key
from node.errors import Refused
from node.runtime import logs
from node.runtime.config import BackendConfig
from node.runtime.runtime import Runtime

LANE = "lease"
PATIENCE_PERIODS = 2  # of a backend that is to lead now: a predecessor that was killed leaves its term behind
MAX_WAIT_S = 1.0  # between two looks
RETRY_S = 0.25

log = logs.get("leadership")


async def lead(config: BackendConfig, runtime: Runtime, *, standby: bool) -> PostgresStore:
    """The node's database, once we lead. Raises Refused where it can't be, or another backend leads and goes on."""
    try:
        conninfo_to_dict(config.database)
    except psycopg.ProgrammingError:  # its text would show the password
        raise Refused("database: is no connection URL; say postgresql://USER@HOST/NAME") from None
    lease = Lease(config.database, config.lease_s)
    patience_s = None if standby else PATIENCE_PERIODS * config.lease_s
    try:
        known = await _prepared(config, runtime, patience_s)
        _check_seed(config, known, standby=standby)
        await _taken(lease, runtime, patience_s)
    except BaseException:
        await runtime.run_blocking(LANE, lease.release)  # after what is under way there
        raise
    log.info("leading", epoch=lease.epoch)
    return PostgresStore(config.database, lease)


async def _prepared(config: BackendConfig, runtime: Runtime, patience_s: float | None) -> bytes | None:
    """The id of the node in the database; a server that is just starting is waited for."""
    began_s, said = runtime.monotonic(), False
    while True:
        try:
            return await runtime.run_blocking(LANE, lambda: prepare(config.database))
        except psycopg.OperationalError as error:
            if patience_s is not None and runtime.monotonic() - began_s > patience_s:
                raise refusal(error) from error
            if not said:
                log.warning("no_database", error=str(error))
            said = True
        except psycopg.Error as error:
            raise refusal(error) from error
        await asyncio.sleep(RETRY_S)


def _check_seed(config: BackendConfig, known: bytes | None, *, standby: bool) -> None:
    """Before its turn comes: a standby with the wrong seed would be none."""
    if known is None and not (standby and not (config.directory / identity.SEED_FILE).exists()):
        return
    seed = identity.load_seed(config.directory, b"", first=False)
    identity.check_owner(known, public_key(node_secret(seed)))


async def _taken(lease: Lease, runtime: Runtime, patience_s: float | None) -> None:
    began_s, said = runtime.monotonic(), False
    while True:
        try:
            left_s = await runtime.run_blocking(LANE, lease.attempt)
            if left_s is None:
                return
            if not said:
                log.info("waiting", leader=lease.holder)
            said = True
            if patience_s is not None and runtime.monotonic() - began_s > patience_s:
                raise Refused(
                    f"database: the backend {lease.holder} leads; stop it first, or start this one with --standby"
                )
            pause_s = min(left_s + 0.001, MAX_WAIT_S)
            await runtime.run_blocking(LANE, lambda pause_s=pause_s: lease.wait(pause_s))  # type: ignore[misc]  # a default binds the value
        except psycopg.Error as error:
            log.warning("no_database", error=str(error))
            await runtime.run_blocking(LANE, lease.disconnect)
            if patience_s is not None and runtime.monotonic() - began_s > patience_s:
                raise refusal(error) from error
            await asyncio.sleep(RETRY_S)
