"""A world: one loop, one network, one trace, one seed, and the processes that live in it."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lnsim.world.loop import Turn, VirtualLoop
from lnsim.world.network import Network
from lnsim.world.process import Process
from lnsim.world.runtime import EPOCH_S, WorldRuntime
from lnsim.world.store import WorldStore
from lnsim.world.trace import Trace

MEMORY = Path("/dev/shm")  # noqa: S108 - where it exists files cost no disk
MAX_COMPLAINTS = 100


class World:
    """Made on the running `VirtualLoop`; `close` when done with it."""

    def __init__(self, seed: int, trace_file: Path | None = None) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "use lnsim.world.loop.run"
        self.loop = loop
        self.seed = seed
        self.directory = Path(
            tempfile.mkdtemp(prefix="lnsim-world-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.trace = Trace(loop.time, trace_file)
        self.network = Network(loop, self.trace, str(seed))
        self.complaints: list[str] = []  # what must not happen in any run
        self._lives: dict[str, int] = {}
        loop.set_exception_handler(self._unhandled)

    def now(self) -> float:
        """Unix time in seconds."""
        return EPOCH_S + self.loop.time()

    def random(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def process(self, name: str, on_end: Callable[[Process], None] | None = None) -> WorldRuntime:
        """A new life of this name. `on_end`: who is told when it was killed, or failed."""
        life = self._lives[name] = self._lives.get(name, 0) + 1
        self.trace.note(name, name, "start")
        process = Process(self.loop, self.network, name, life, self._ended(on_end))
        return WorldRuntime(self.loop, self.network, self.trace, process, str(self.seed))

    def _ended(self, on_end: Callable[[Process], None] | None) -> Callable[[Process], None]:
        def ended(process: Process) -> None:
            self.trace.note(process.name, process.name, "end")
            if process.failure is not None:
                self.complain(f"{process.name}: {process.failure!r}")
            if on_end is not None:
                on_end(process)

        return ended

    def store(self, process: Process, path: Path) -> WorldStore:
        """Opened for this life, and taken from it with its end."""
        path.parent.mkdir(parents=True, exist_ok=True)
        store = WorldStore(path, self.trace, process.name)
        process.detach.append(store.close)
        return store

    def complain(self, text: str) -> None:
        if len(self.complaints) < MAX_COMPLAINTS:
            self.complaints.append(f"{self.loop.time():.3f} s: {text}")

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        turn = context.get("handle")
        if isinstance(turn, Turn) and isinstance(turn.gate, Process) and turn.gate.is_over:
            return  # it was killed amid this
        error = context.get("exception")
        self.complain(f"{context.get('message')}: {error!r}")

    def close(self) -> None:
        self.trace.close()
        shutil.rmtree(self.directory, ignore_errors=True)
