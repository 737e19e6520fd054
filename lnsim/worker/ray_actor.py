"""A worker as an actor of a Ray cluster: the same object as in a process, with a directory of its own where it is."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import psutil

from lnsim.api_client import CallFailed
from lnsim.worker.worker import WORKER, Worker
from node.runtime import logs
from node.runtime.config import LogConfig
from node.runtime.files import raise_file_limit
from node.runtime.runtime import SystemRuntime

LOG_LEVEL = "warning"


class RayWorker:
    """All methods but the first are coroutines, so it is an asynchronous actor: calls run beside each other."""

    def __init__(self) -> None:
        raise_file_limit()
        logs.configure(LogConfig(level=LOG_LEVEL), process="worker")
        self._worker: Worker | None = None
        self._place: Path | None = None

    async def begin(self) -> int:
        """Its process's id."""
        self._place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="lnsim-ray-"))
        self._worker = Worker(lambda _name: SystemRuntime(_fail))
        return os.getpid()

    async def call(self, target: str, name: str, arguments: bytes) -> tuple[bool, Any]:
        """(True, the answer), or (False, the words of who refused); arguments and answer are plain data as JSON."""
        assert self._worker is not None
        own = msgspec.json.decode(arguments)
        if target == WORKER and name == "start_node":
            own["config"]["backend"]["data_dir"] = str(self._home(own["name"]))
        try:
            return True, msgspec.json.encode(await self._worker.call(target, name, own))
        except CallFailed as error:
            return False, str(error)

    async def usage(self) -> tuple[float, float]:
        """CPU seconds so far, and MB of memory."""
        process = psutil.Process()
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss / 1e6

    async def stop(self) -> None:
        """Everybody in it ends in order, and nothing of them is left on its machine."""
        if self._worker is not None:
            await self._worker.stop()
        if self._place is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(shutil.rmtree, self._place)

    def _home(self, name: str) -> Path:
        assert self._place is not None
        return self._place / name


def _fail(task: str, error: BaseException) -> None:
    """A fault of ours: end at once, so that nobody measures half a worker."""
    logs.get("worker").error("task_failed", task=task, exc_info=error)
    os._exit(1)
