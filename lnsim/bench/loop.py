"""The event loop that the node's own processes run on."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from node.runtime.runtime import SystemRuntime

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, on uvloop where it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - optional, as for the node

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        return runner.run(work)


def new_runtime() -> SystemRuntime:
    """One whose background tasks, when they break, break the benchmark."""
    loop = asyncio.get_running_loop()

    def failed(name: str, error: BaseException) -> None:
        loop.call_exception_handler({"message": f"{name} broke", "exception": error})

    return SystemRuntime(failed)
