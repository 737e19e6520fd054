"""A worker in its own process, commanded by JSON lines (`lnsim.json_lines`); `lnsim.worker.worker.Worker` has the names.

Load runs in here, so that a payment costs its maker no trip between processes.
"""

import os

from lnsim.bench.loop import run
from lnsim.json_lines import Server
from lnsim.worker.worker import Worker
from node.runtime import logs
from node.runtime.config import LogConfig
from node.runtime.files import raise_file_limit
from node.runtime.runtime import SystemRuntime


async def _serve() -> None:
    worker = Worker(_runtime)
    try:
        await Server(worker.call, _fail).run({"ready": "worker", "pid": os.getpid()})
    finally:
        await worker.stop()


def _runtime(name: str) -> SystemRuntime:
    return SystemRuntime(_fail)


def _fail(task: str, error: BaseException) -> None:
    """A fault of ours: end at once, so that nobody measures half a worker."""
    logs.get("worker").error("task_failed", task=task, exc_info=error)
    os._exit(1)


def main() -> None:
    raise_file_limit()
    logs.configure(LogConfig(level="warning"), process="worker")
    run(_serve())


if __name__ == "__main__":
    main()
