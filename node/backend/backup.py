"""`lnnode backup`: through the API of the backend that runs, or by ourselves where none does."""

from pathlib import Path

from node.backend.sqlite_store import DATABASE, SqliteStore
from node.errors import Refused
from node.runtime.api_client import NobodyAnswers, api_of, call
from node.runtime.config import BackendConfig

TIMEOUT_S = 3_600.0


def take(config: BackendConfig, target: Path) -> str:
    """What was done, in a sentence. Raises Refused."""
    try:
        done = call(api_of(config), "backup", answer_s=TIMEOUT_S, target=str(target))
    except NobodyAnswers:
        _copy(config, target)
        return f"{target}: copied; no backend was running"
    return f"{target}: holds term {done['epoch']} up to transaction {done['commits']} or later"


def _copy(config: BackendConfig, target: Path) -> None:
    path = config.directory / DATABASE
    if config.database or not path.exists():
        raise Refused(f"{path}: there is no such database, and no backend answers at {config.api_address}")
    store = SqliteStore(path)
    try:
        store.backup(target)
    finally:
        store.close()
