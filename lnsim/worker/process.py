"""A worker in its own process, commanded by JSON lines.

In: `{"id": 1, "target": "", "call": NAME, "arguments": {...}}`, targets and names as `lnsim.worker.worker.Worker` has
them. Out: `{"id": 1, "result": ...}` or `{"id": 1, "error": "..."}`. Load runs in here, so that a payment costs its
maker no trip between processes.
"""

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

import msgspec
from msgspec import Struct

from lnsim.api_client import CallFailed
from lnsim.worker.worker import Worker
from node.runtime import logs
from node.runtime.config import LogConfig
from node.runtime.files import raise_file_limit
from node.runtime.runtime import SystemRuntime

MAX_LINE_BYTES = 64 << 20  # the updates of a gossip storm travel as one line


class Request(Struct, frozen=True):
    id: int
    target: str
    call: str
    arguments: dict[str, Any] = {}


class WorkerProcess:
    """Answers requests until stdin ends."""

    def __init__(self) -> None:
        self._worker = Worker(_runtime)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until end of file on stdin (whoever started us is gone) or SIGTERM."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        reading = asyncio.create_task(self._read())
        waiting = asyncio.create_task(stopped.wait())
        _write({"ready": "worker", "pid": os.getpid()})
        await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        waiting.cancel()
        for task in self._tasks:
            task.cancel()
        await self._worker.stop()

    async def _read(self) -> None:
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := await reader.readline():
            request = msgspec.json.decode(line, type=Request)
            task = asyncio.create_task(self._answer(request), name=request.call)
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _answer(self, request: Request) -> None:
        try:
            result = await self._worker.call(request.target, request.call, request.arguments)
        except CallFailed as error:
            _write({"id": request.id, "error": str(error)})
        else:
            _write({"id": request.id, "result": result})

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _fail(task.get_name(), error)


def _runtime(name: str) -> SystemRuntime:
    return SystemRuntime(_fail)


def _fail(task: str, error: BaseException) -> None:
    """A fault of ours: end at once, so that nobody measures half a worker."""
    logs.get("worker").error("task_failed", task=task, exc_info=error)
    os._exit(1)


def _write(message: dict[str, Any]) -> None:
    line = msgspec.json.encode(message) + b"\n"
    with contextlib.suppress(BrokenPipeError):  # nobody is there to read; end of file on stdin ends us
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


async def _run() -> None:
    await WorkerProcess().run()


def main() -> None:
    raise_file_limit()
    logs.configure(LogConfig(level="warning"), process="worker")
    try:
        import uvloop  # noqa: PLC0415 - where it exists it is the faster loop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        runner.run(_run())


if __name__ == "__main__":
    main()
