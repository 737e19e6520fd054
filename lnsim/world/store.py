"""The backend's store in a world: the real one on a file that nobody syncs, which a kill takes away from its process."""

from pathlib import Path

import msgspec

from lnsim.world.trace import Trace
from node.backend.sqlite_store import SqliteStore
from node.backend.store import Statements


class WorldStore(SqliteStore):
    """What a killed process leaves does not depend on syncs, so it does none; how long they take is the lane's."""

    def __init__(self, path: Path, trace: Trace, owner: str) -> None:
        super().__init__(path)
        self._trace = trace
        self._owner = owner
        self._db.execute("PRAGMA synchronous=OFF")

    def commit(self, statements: Statements) -> None:
        super().commit(statements)
        self._trace.note(self._owner, self._owner, "commit", msgspec.msgpack.encode(statements))
