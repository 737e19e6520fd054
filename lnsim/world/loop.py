"""An asyncio loop on virtual time: nothing is waited for, time jumps to the next timer.

One thread, no sockets, no selector, and the same order in every run: callbacks in the order in which they were asked
for, timers by their time and then by the order in which they were set.
"""

import asyncio
import heapq
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, Protocol, TypeVar, TypeVarTuple

from node.errors import Refused

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_TURNS_AT_ONCE = 1_000_000  # callbacks without any time passing: more is a loop that never lets go
RESOLUTION_S = 1e-9  # of the clock: whoever sleeps for what rounding left over would never get there
MIN_CANCELLED = 200  # timers, before it is worth while to clear them out
MAX_TASKS_NAMED = 20


class Stuck(Refused):
    """Nothing can ever happen any more, or nothing but the same for ever."""


class Gate(Protocol):
    """A process of the world, as the loop sees it: whether its callbacks may run now."""

    is_open: bool

    def turn_away(self, turn: "Turn") -> bool:
        """It is due, and the gate is not open: whether it must not run now."""
        ...

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task began within the process."""
        ...


GATE: ContextVar[Gate | None] = ContextVar("gate", default=None)  # of the process whose code runs


class Turn(asyncio.TimerHandle):
    """One callback to come; it belongs to the process within which it was asked for."""

    __slots__ = ("args", "callback", "context", "gate", "gone", "loop", "timed", "when_s")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "VirtualLoop",
        context: Context | None,
        when_s: float,
        *,
        timed: bool,
    ) -> None:
        """Everything of the base class is replaced: this runs millions of times."""
        self.callback = callback
        self.args = args
        self.loop = loop
        if context is None:
            self.gate = GATE.get()
            self.context = copy_context()
        else:
            self.gate = context.get(GATE)
            self.context = context
        self.when_s = when_s
        self.timed = timed
        self.gone = False

    def __repr__(self) -> str:
        return f"<Turn {self.callback!r} at {self.when_s}>"

    def cancel(self) -> None:
        if not self.gone:
            self.gone = True
            self.args = ()
            if self.timed:
                self.loop.timer_cancelled()

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.when_s


class VirtualLoop(asyncio.BaseEventLoop):
    """Use it with `run`, or as the loop factory of an `asyncio.Runner`."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._next: deque[Turn] = deque()
        self._timers: list[tuple[float, int, Turn]] = []
        self._order = count()
        self._cancelled_timers = 0
        self._turns_at_once = 0
        self._thread = threading.current_thread()
        self.turns = 0

    def time(self) -> float:
        return self._now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Turn:
        turn = Turn(callback, args, self, context, self._now_s, timed=False)
        self._next.append(turn)
        return turn

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Turn:
        """From the loop's own thread only: a signal's handler, the end of an asynchronous generator."""
        if threading.current_thread() is not self._thread:
            raise RuntimeError("a virtual world has no threads: use Runtime.run_blocking")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Turn:
        when_s = self._now_s + (max(delay, RESOLUTION_S) if delay > 0 else 0.0)
        return self.call_at(when_s, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Turn:
        turn = Turn(callback, args, self, context, when, timed=True)
        heapq.heappush(self._timers, (when, next(self._order), turn))
        return turn

    def again(self, turns: list[Turn]) -> None:
        """Run these, which were turned away before, ahead of what comes next."""
        self._next.extend(turns)

    def timer_cancelled(self) -> None:
        """It may be on the heap still, or due already: the count is an estimate, for when to clear up."""
        self._cancelled_timers += 1

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = super().create_task(coro, name=name, context=context)
        gate = GATE.get() if context is None else context.get(GATE)
        if gate is not None:
            gate.adopt(task)
        return task

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        raise RuntimeError("a virtual world has no threads: use Runtime.run_blocking")

    def _run_once(self) -> None:
        """All that is due now, else on to the next timer. The base class's own loop calls this again and again."""
        following = self._next
        if not following:
            self._advance()
        for _ in range(len(following)):
            turn = following.popleft()
            if turn.gone:
                continue
            gate = turn.gate
            if gate is not None and not gate.is_open and gate.turn_away(turn):
                continue
            self.turns += 1
            self._turns_at_once += 1
            try:
                turn.context.run(turn.callback, *turn.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as every loop does: the handler says what becomes of it
                what = f"exception in {turn.callback!r}"
                self.call_exception_handler({"message": what, "exception": error, "handle": turn})
        if self._turns_at_once > MAX_TURNS_AT_ONCE:
            raise Stuck(f"{MAX_TURNS_AT_ONCE} turns at {self._now_s} s; next: {self._coming()}")

    def _advance(self) -> None:
        if self._cancelled_timers > max(MIN_CANCELLED, len(self._timers) // 2):
            self._timers = [timer for timer in self._timers if not timer[2].gone]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0
        timers, following = self._timers, self._next
        while timers and timers[0][2].gone:
            heapq.heappop(timers)
        if not timers:
            raise Stuck(f"nothing can happen any more; waiting: {self._waiting()}")
        if timers[0][0] > self._now_s:
            self._now_s = timers[0][0]
            self._turns_at_once = 0
        while timers and timers[0][0] <= self._now_s:
            turn = heapq.heappop(timers)[2]
            if not turn.gone:
                following.append(turn)

    def _coming(self) -> str:
        """Whose turns are next: of tasks by what they run, of others by their callbacks."""
        owners = [getattr(turn.callback, "__self__", turn.callback) for turn in self._next]
        return ", ".join(sorted({repr(owner) for owner in owners})[:MAX_TASKS_NAMED])

    def _waiting(self) -> str:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        rest = f" and {len(names) - MAX_TASKS_NAMED} others" if len(names) > MAX_TASKS_NAMED else ""
        return ", ".join(names[:MAX_TASKS_NAMED]) + rest

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on a loop of its own. Raises Stuck."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
