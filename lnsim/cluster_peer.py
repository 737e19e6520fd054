"""Our end of a simulated peer: commands go down its stdin as JSON lines, answers come up its stdout."""

import asyncio
import sys
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from lnsim.api_client import CallFailed
from lnsim.cluster_process import Child, Supervisor

Answer = dict[str, Any]


class Peer:
    """One simulated peer; `call` takes the names of the node's API and those of `lnsim.peer_process`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.node_id = ""
        self.address = ""  # where it listens
        self.child: Child | None = None
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def spawn(self, supervisor: Supervisor) -> None:
        """Start the process; it loads its code and waits for `begin`."""
        argv = [sys.executable, "-m", "lnsim.peer_process"]
        self.child = await supervisor.start(self.name, argv)
        self.child.on_line = self._line
        self.child.on_exit.append(self._gone)

    async def begin(self, config: dict[str, Any]) -> None:
        """Start the node in it; `config` is that of `lnnode standalone`."""
        answer = await self.call("begin", config=config)
        self.node_id, self.address = answer["node_id"], answer["listen"]

    async def call(self, name: str, **arguments: Any) -> Any:
        """Raises CallFailed with the node's own words, or where the process is gone."""
        if self.child is None or self.child.pid is None:
            raise CallFailed(f"{self.name} is not running")
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.child.write(msgspec.json.encode({"id": number, "call": name, "arguments": arguments}))
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


def peer_config(directory: Path, name: str, chain: dict[str, Any], flush_interval_s: float) -> dict[str, Any]:
    """A configuration of `lnnode standalone` for a simulated peer."""
    return {
        "listen": "127.0.0.1:0",
        "backend": {
            "data_dir": str(directory / name),
            "alias": name,
            "flush_interval_s": flush_interval_s,
            "bitcoind": bitcoind_config(chain, name),
            "log": {"level": "warning"},
        },
    }


def bitcoind_config(chain: dict[str, Any], wallet: str) -> dict[str, Any]:
    """How a node reaches the embedded chain, from that one's ready line."""
    return {
        "url": chain["rpc_url"],
        "user": chain["user"],
        "password": chain["password"],
        "zmq": chain["zmq"] or "",
        "wallet": wallet,
    }
