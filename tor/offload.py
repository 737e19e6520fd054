"""Blocking work in a thread of its own, under a limit: a tor that hangs holds up neither the loop nor our end."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def off_loop(work: Callable[[], T], timeout_s: float) -> T:
    """What `work` returns or raises; TimeoutError when it takes too long (its thread is left to itself)."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)  # type: ignore[arg-type]  # no error: work's own value

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except Exception as raised:  # noqa: BLE001 - carried over to the caller, all of it
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, value, error)

    threading.Thread(target=run, name="off loop", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await answer
