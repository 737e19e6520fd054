"""The backend of `lnnode backend` on a disk that is as slow as it is told to be: `python -m lnsim.slow_backend CONFIG`.

How slow is written in a file in its data directory, so that it is still so after a crash.
"""

import sys
import time
from pathlib import Path

from node.backend.sqlite_store import DATABASE, SqliteStore
from node.backend.store import Statements, Store
from node.cli import run_backend
from node.runtime.config import BackendConfig, load

ARGV = (sys.executable, "-m", "lnsim.slow_backend")
DELAY_FILE = "commit_delay_s"


class SlowStore(SqliteStore):
    """Sleeps before each commit, in the thread that commits: what waits for the disk waits longer."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / DATABASE)
        self._delay_file = directory / DELAY_FILE

    def commit(self, statements: Statements) -> None:
        if delay_s := read_delay(self._delay_file):
            time.sleep(delay_s)
        super().commit(statements)


def read_delay(path: Path) -> float:
    try:
        return float(path.read_text())
    except FileNotFoundError:
        return 0.0


def write_delay(directory: Path, delay_s: float) -> None:
    """At once, and never half written."""
    new = directory / f"{DELAY_FILE}.new"
    new.write_text(str(delay_s))
    new.replace(directory / DELAY_FILE)


def _open(config: BackendConfig) -> Store:
    config.directory.mkdir(parents=True, exist_ok=True)
    return SlowStore(config.directory)


if __name__ == "__main__":
    run_backend(load(BackendConfig, Path(sys.argv[1])), _open)
