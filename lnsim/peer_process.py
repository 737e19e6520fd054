"""One simulated peer in its own process: a standalone node, commanded by JSON lines.

In: `{"id": 1, "call": NAME, "arguments": {...}}`. Out: `{"id": 1, "result": ...}` or `{"id": 1, "error": "..."}`.
NAME is `begin` (first, once: the node's configuration), a command of the node's API, or `load` and `stop_load`.
Load runs in here, so that a payment costs its maker no trip between processes; `latency_ms` is measured in here too.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import Any

import msgspec
from msgspec import Struct

from lnsim.peer_load import Load, LoadPlan
from node.errors import Refused
from node.runtime import logs
from node.runtime.config import StandaloneConfig
from node.runtime.runtime import SystemRuntime
from node.runtime.zmq_client import ZmqHints
from node.standalone import Standalone

MAX_LINE_BYTES = 4 << 20
PAYING = frozenset({"pay", "keysend"})


class Request(Struct, frozen=True):
    id: int
    call: str
    arguments: dict[str, Any] = {}


class PeerProcess:
    """Answers requests until stdin ends."""

    def __init__(self) -> None:
        self._node: Standalone | None = None
        self._load: Load | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until end of file on stdin (whoever started us is gone) or SIGTERM."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        reading = asyncio.create_task(self._read())
        waiting = asyncio.create_task(stopped.wait())
        _write({"ready": "peer", "pid": os.getpid()})
        await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        waiting.cancel()
        for task in self._tasks:
            task.cancel()
        if self._node is not None:
            await self._node.stop()

    async def _read(self) -> None:
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := await reader.readline():
            request = msgspec.json.decode(line, type=Request)
            task = asyncio.create_task(self._answer(request), name=request.call)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            result = await self._call(request.call, request.arguments)
        except (Refused, msgspec.ValidationError, TypeError, TimeoutError, OSError) as error:
            _write({"id": request.id, "error": f"{request.call}: {error or type(error).__name__}"})
        else:
            _write({"id": request.id, "result": result})

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        if name == "begin":
            return await self._begin(msgspec.convert(arguments["config"], StandaloneConfig))
        if self._node is None:
            raise Refused("the node has not begun")
        if name == "load":
            self._load = Load(self._node.commands, msgspec.convert(arguments, LoadPlan), time.perf_counter)
            return await self._load.run()
        if name == "stop_load":
            return self._load.stop() if self._load else None
        command = getattr(self._node.commands, name, None)
        if command is None or name.startswith("_"):
            raise Refused(f"no command {name}")
        began_s = time.perf_counter()
        result = await command(**arguments)
        if name in PAYING:
            result = {**result, "latency_ms": (time.perf_counter() - began_s) * 1_000}
        return result

    async def _begin(self, config: StandaloneConfig) -> dict[str, Any]:
        if self._node is not None:
            raise Refused("the node has begun")
        logs.configure(config.backend.log, node=config.backend.alias)
        hints = ZmqHints(config.backend.bitcoind.zmq) if config.backend.bitcoind.zmq else None
        self._node = Standalone(config, SystemRuntime(_fail), hints=hints)
        await self._node.start()
        return {"node_id": _text(self._node.node_id), "listen": self._node.listen_address}


def _text(node_id: bytes | str) -> str:
    return node_id if isinstance(node_id, str) else node_id.hex()


def _fail(task: str, error: BaseException) -> None:
    """A background task of the node broke: end at once, so that nobody measures half a node."""
    logs.get("peer").error("task_failed", task=task, exc_info=error)
    os._exit(1)


def _write(message: dict[str, Any]) -> None:
    line = msgspec.json.encode(message) + b"\n"
    with contextlib.suppress(BrokenPipeError):  # nobody is there to read; end of file on stdin ends us
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def main() -> None:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - where it exists it is the faster loop

        uvloop.install()
    asyncio.run(PeerProcess().run())


if __name__ == "__main__":
    main()
