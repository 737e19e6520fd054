"""Requests and answers as JSON lines: a process of ours takes them on stdin, the one that started it sends them.

In: `{"id": 1, "target": "", "call": NAME, "arguments": {...}}`. Out: `{"id": 1, "result": ...}` or
`{"id": 1, "error": "..."}`.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any

import msgspec
from msgspec import Struct

from lnsim.api_client import CallFailed
from lnsim.cluster_process import Child, Supervisor

MAX_LINE_BYTES = 64 << 20  # the whole graph of a node travels as one line

Answer = Callable[[str, str, Mapping[str, Any]], Awaitable[Any]]  # target, name, arguments; raises CallFailed
Failed = Callable[[str, BaseException], None]


class Request(Struct, frozen=True):
    id: int
    call: str
    target: str = ""
    arguments: dict[str, Any] = {}


class Server:
    """The end in the process that was started."""

    def __init__(self, answer: Answer, failed: Failed) -> None:
        """`failed` hears of a request that met a fault of ours, and ends the process."""
        self._answer = answer
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, ready: Mapping[str, Any]) -> None:
        """Say `ready`, then answer until end of file (whoever started us is gone) or SIGTERM."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        reading = asyncio.create_task(self._read())
        waiting = asyncio.create_task(stopped.wait())
        _write(ready)
        await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, waiting, *self._tasks):
            task.cancel()

    async def _read(self) -> None:
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := await reader.readline():
            request = msgspec.json.decode(line, type=Request)
            task = asyncio.create_task(self._respond(request), name=request.call)
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _respond(self, request: Request) -> None:
        try:
            result = await self._answer(request.target, request.call, request.arguments)
        except CallFailed as error:
            _write({"id": request.id, "error": str(error)})
        else:
            _write({"id": request.id, "result": result})

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(task.get_name(), error)


def _write(message: Mapping[str, Any]) -> None:
    line = msgspec.json.encode(message) + b"\n"
    with contextlib.suppress(BrokenPipeError):  # nobody is there to read; end of file on stdin ends us
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


class Remote:
    """Our end of a process that we start: `spawn` it, then `call`."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        self.name = name
        self._argv = argv
        self._child: Child | None = None
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def spawn(self, supervisor: Supervisor) -> None:
        """Returns once it is ready. Raises ProcessFailed."""
        self._child = await supervisor.start(self.name, self._argv)
        self._child.on_line = self._line
        self._child.on_exit.append(self._gone)

    async def call(self, target: str, name: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CallFailed with the other side's own words, or where the process is gone."""
        if self._child is None or self._child.pid is None:
            raise CallFailed(f"{self.name} is not running")
        number = next(self._ids)
        line = msgspec.json.encode(Request(number, name, target, dict(arguments)))
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._child.write(line)
        try:
            return await future
        finally:
            del self._waiting[number]

    def _line(self, line: bytes) -> None:
        answer = msgspec.json.decode(line, type=dict[str, Any])
        future = self._waiting.get(answer["id"])
        if future is None or future.done():
            return
        if "error" in answer:
            future.set_exception(CallFailed(answer["error"]))
        else:
            future.set_result(answer["result"])

    def _gone(self, child: Child, status: int) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CallFailed(f"{self.name} ended with status {status}"))
