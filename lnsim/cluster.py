"""A chain, a backend, frontends and simulated peers, as real processes on this machine."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lnsim.api_client import CallFailed, ChainRpc, NodeApi
from lnsim.cluster_peer import Peer, bitcoind_config, peer_config
from lnsim.cluster_process import Supervisor, command

T = TypeVar("T")

HUB = "hub"  # the clustered node's name, in wallets and in directories
MINER = ""  # the chain's own wallet, bitcoind's default one
FLUSH_INTERVAL_S = 0.2  # gossip reaches peers at once: nobody watches for a minute
COINS = 4  # separate outputs for each node, so that it can fund as many channels at once
COIN_BTC = 1
DEPTH = 6  # BOLT 7: confirmations before a channel may be announced


class Cluster:
    """The processes of one run. `start`, use, `stop`; every name of a process is a key of `supervisor.children`."""

    def __init__(
        self,
        directory: Path,
        frontends: int,
        peers: list[str],
        report: Callable[[str, str], None],
        channels: Mapping[str, Any] | None = None,
    ) -> None:
        """`channels` is that section of every node's configuration."""
        self.directory = directory
        self._channels = dict(channels or {})
        self.supervisor = Supervisor(directory, report)
        self.frontends = [f"f{number}" for number in range(1, frontends + 1)]
        self.peers = [Peer(name) for name in peers]
        self.node_id = ""
        self.endpoint: dict[str, Any] = {}  # the chain's
        self._port = _ReservedPort()

    @property
    def address(self) -> str:
        """Where the frontends listen, all of them."""
        return f"127.0.0.1:{self._port.number}"

    @property
    def api(self) -> NodeApi:
        return NodeApi(f"unix:{self.directory / HUB / 'api.sock'}")

    @property
    def chain(self) -> ChainRpc:
        return self.wallet(None)

    def wallet(self, name: str | None) -> ChainRpc:
        return ChainRpc(self.endpoint["rpc_url"], self.endpoint["user"], self.endpoint["password"], name)

    async def start(self) -> None:
        """Everything up: the chain first, all others at once. Raises ProcessFailed."""
        await all_of(self._start_hub(), *(peer.spawn(self.supervisor) for peer in self.peers))
        await all_of(*map(self._begin, self.peers))

    async def stop(self) -> None:
        """Everything down, in the order in which it does not miss each other."""
        supervisor = self.supervisor
        for group in ([peer.name for peer in self.peers], self.frontends, ["backend"], ["chain"]):
            await supervisor.stop([name for name in group if name in supervisor.children])
        await supervisor.stop()
        self._port.close()

    async def mine(self, blocks: int) -> int:
        """Returns the new height."""
        address = await self.wallet(MINER).call("getnewaddress")
        await self.chain.call("generatetoaddress", blocks, address)
        height: int = await self.chain.call("getblockcount")
        return height

    async def _start_hub(self) -> None:
        await self._start_chain()
        await self._fund()
        await all_of(self._start_backend(), *map(self._start_frontend, self.frontends))

    async def _start_chain(self) -> None:
        directory = self.directory / "chain"
        directory.mkdir()
        argv = [*command("lnsim"), "chain", "--datadir", str(directory)]
        self.endpoint = (await self.supervisor.start("chain", argv)).ready

    async def _fund(self) -> None:
        """A wallet for every node, with coins in it."""
        amounts: dict[str, int] = {}
        for name in (HUB, *(peer.name for peer in self.peers)):
            await self.chain.call("createwallet", name)
            for _ in range(COINS):
                amounts[await self.wallet(name).call("getnewaddress")] = COIN_BTC
        await self.wallet(MINER).call("sendmany", "", amounts)
        await self.mine(1)

    async def _start_backend(self) -> None:
        config = {
            "data_dir": str(self.directory / HUB),
            "alias": HUB,
            "flush_interval_s": FLUSH_INTERVAL_S,
            "announce_addresses": [self.address],
            "bitcoind": bitcoind_config(self.endpoint, HUB),
            "channels": self._channels,
            "log": {"level": "warning"},
        }
        argv = [*command("lnnode"), "backend", self._write("backend", config)]
        child = await self.supervisor.start("backend", argv, restart=True)
        self.node_id = child.ready["node_id"]

    async def _start_frontend(self, name: str) -> None:
        config = {
            "id": name,
            "listen": self.address,
            "backend": f"unix:{self.directory / HUB / 'link.sock'}",
            "reconnect_s": 0.1,
            "log": {"level": "warning"},
        }
        argv = [*command("lnnode"), "frontend", self._write(name, config)]
        await self.supervisor.start(name, argv, restart=True)

    async def _begin(self, peer: Peer) -> None:
        config = peer_config(self.directory, peer.name, self.endpoint, FLUSH_INTERVAL_S)
        config["backend"]["channels"] = self._channels
        await peer.begin(config)

    def _write(self, name: str, config: dict[str, Any]) -> str:
        path = self.directory / f"{name}.yaml"
        path.write_bytes(msgspec.yaml.encode(config))
        return str(path)


class _ReservedPort:
    """A port that is ours for the whole run: bound to share, never listening, so nobody else gets it meanwhile."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


async def all_of(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Results of all at once, in order; when one fails or we are cancelled, the others end first."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def wait_until(
    ready: Callable[[], Awaitable[bool]], timeout_s: float, what: str, pause_s: float = 0.05
) -> None:
    """Ask again until the answer is true. Raises CallFailed that says what did not happen."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while True:
        if await ready():
            return
        if loop.time() > deadline_s:
            raise CallFailed(f"{what}: not within {timeout_s:g} s")
        await asyncio.sleep(pause_s)
