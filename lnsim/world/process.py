"""One process of a world in one life: what it runs, what it has open, and how it is killed or stands still."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from enum import Enum
from typing import Any, TypeVar

from lnsim.world.loop import GATE, Turn, VirtualLoop
from lnsim.world.network import Network
from lnsim.world.transport import End

T = TypeVar("T")

NOBODY = Context()  # of callbacks that are the world's, not a process's

# What it takes to deal with what arrives: some 250 payments a second through one node. Without it payers who each wait
# for the last payment to end would meet no limit at all.
CHUNK_S = 0.000_1
BYTE_S = 0.000_002
MAX_BYTES_TIMED = 1 << 16  # graphs come in long runs, and are dealt with faster


class Life(Enum):
    RUNS = "runs"
    STANDS = "stands"  # SIGSTOP
    OVER = "over"


class Process:
    """A gate of the loop: whatever was begun within it is turned away while it does not run.

    `on_end` runs once, when it is killed or one of its tasks has failed; `detach` gives back what it held outside.
    """

    def __init__(
        self, loop: VirtualLoop, network: Network, name: str, life: int, on_end: Callable[["Process"], None]
    ) -> None:
        self.name = name
        self.life = life  # 1 is the first
        self.state = Life.RUNS
        self.is_open = True
        self.context: Context = copy_context()
        self.context.run(GATE.set, self)
        self.ends: dict[End, None] = {}
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.fuse: int | None = None  # so many writes to the network are left to it
        self.failure: BaseException | None = None
        self.detach: list[Callable[[], None]] = []
        self._loop = loop
        self._network = network
        self._on_end = on_end
        self._held: list[Turn] = []
        self._free_s = 0.0  # when it has dealt with what it was given so far

    @property
    def is_over(self) -> bool:
        return self.state is Life.OVER

    # Gate

    def turn_away(self, turn: Turn) -> bool:
        """Held back while it stands still. After its end no timer fires; tasks that are cancelled may end."""
        if self.state is Life.STANDS:
            self._held.append(turn)
            return True
        return turn.timed

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self.tasks[task] = None
        task.add_done_callback(self._left, context=NOBODY)
        if self.state is Life.OVER:
            task.cancel()

    def _left(self, task: asyncio.Task[Any]) -> None:
        del self.tasks[task]
        if self.state is Life.OVER and not task.cancelled():
            task.exception()  # what became of the dead is nobody's concern

    # running

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Within this process, wherever it is called from."""
        return self._loop.create_task(work, name=f"{self.name}: {name}", context=self.context)

    def background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """As `Runtime.spawn`: an exception in it ends the process."""
        task = self.spawn(work, name)
        task.add_done_callback(self._ended, context=NOBODY)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if self.state is not Life.OVER:
            self.failure = error
            self.kill()

    def busy_for(self) -> float:
        return self._free_s - self._loop.time()

    def occupy(self, size: int) -> None:
        now_s = self._loop.time()
        self._free_s = max(self._free_s, now_s) + CHUNK_S + BYTE_S * min(size, MAX_BYTES_TIMED)

    # faults

    def kill(self) -> None:
        """At once, as SIGKILL. What it wrote to the network still arrives; nothing of it acts any more."""
        if self.state is Life.OVER:
            return
        self.state, self.is_open = Life.OVER, False
        self._network.lose(self)
        for give_back in self.detach:
            give_back()
        for task in list(self.tasks):  # nothing is left to the collector's mood
            task.cancel()
        self._loop.again([turn for turn in self._held if not turn.timed])
        self._held.clear()
        self._on_end(self)

    def burnt_out(self) -> bool:
        """Count one write; the one for which nothing is left of the fuse kills it."""
        if self.fuse is None:
            return False
        self.fuse -= 1
        if self.fuse < 0:
            self.kill()
        return self.fuse < 0

    def pause(self) -> None:
        if self.state is Life.RUNS:
            self.state, self.is_open = Life.STANDS, False

    def go_on(self) -> None:
        if self.state is Life.STANDS:
            self.state, self.is_open = Life.RUNS, True
            held, self._held = self._held, []
            self._loop.again(held)
