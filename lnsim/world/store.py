"""The backend's store in a world: the real one on a file that nobody syncs, which a kill takes away from its process."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from lnsim.world.trace import Trace
from node.backend.store import Parameters, Store


class WorldStore(Store):
    """What a killed process leaves does not depend on syncs, so it does none; how long they take is the lane's."""

    def __init__(self, path: Path, trace: Trace, owner: str) -> None:
        super().__init__(path)
        self._trace = trace
        self._owner = owner
        self._db.execute("PRAGMA synchronous=OFF")

    def commit(self, statements: Iterable[tuple[str, list[Parameters]]]) -> None:
        listed = list(statements)
        super().commit(listed)
        self._trace.note(self._owner, self._owner, "commit", msgspec.msgpack.encode(listed))
