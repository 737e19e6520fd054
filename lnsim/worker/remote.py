"""Our end of a worker's process: commands go down its stdin as JSON lines, answers come up its stdout."""

import asyncio
import sys
from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec

from lnsim.api_client import CallFailed
from lnsim.cluster_process import Child, Supervisor

Answer = dict[str, Any]


class RemoteWorker:
    """`spawn` it, then `call` as one calls a `lnsim.worker.worker.Worker`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.child: Child | None = None
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def spawn(self, supervisor: Supervisor) -> None:
        """Start the process; it is empty at first. Raises ProcessFailed."""
        argv = [sys.executable, "-m", "lnsim.worker.process"]
        self.child = await supervisor.start(self.name, argv)
        self.child.on_line = self._line
        self.child.on_exit.append(self._gone)

    async def call(self, target: str, name: str, arguments: Mapping[str, Any]) -> Any:
        """Raises CallFailed with the worker's own words, or where the process is gone."""
        if self.child is None or self.child.pid is None:
            raise CallFailed(f"{self.name} is not running")
        number = next(self._ids)
        request = {"id": number, "target": target, "call": name, "arguments": arguments}
        line = msgspec.json.encode(request)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.child.write(line)
        try:
            return await future
        finally:
            del self._waiting[number]

    def _line(self, line: bytes) -> None:
        answer = msgspec.json.decode(line, type=Answer)
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
