"""A simulated peer that has a worker's process to itself, and the configuration of any simulated peer."""

import sys
from pathlib import Path
from typing import Any

from lnsim.cluster_process import Supervisor
from lnsim.json_lines import Remote

WORKER_ARGV = (sys.executable, "-m", "lnsim.worker.process")


class Peer:
    """One simulated peer; `call` takes the names of the node's API, and `load` and `stop_load`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.node_id = ""
        self.address = ""  # where it listens
        self._worker = Remote(name, WORKER_ARGV)

    async def spawn(self, supervisor: Supervisor) -> None:
        """Start the process; it loads its code and waits for `begin`."""
        await self._worker.spawn(supervisor)

    async def begin(self, config: dict[str, Any]) -> None:
        """Start the node in it; `config` is that of `lnnode standalone`."""
        answer = await self._worker.call("", "start_node", {"name": self.name, "config": config})
        self.node_id, self.address = answer["node_id"], answer["listen"]

    async def call(self, name: str, **arguments: Any) -> Any:
        """Raises CallFailed with the node's own words, or where the process is gone."""
        return await self._worker.call(self.name, name, arguments)


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
