"""A chain, a backend, frontends and simulated peers, as real processes on this machine."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from lnsim.api_client import CallFailed, ChainRpc, NodeApi
from lnsim.chain.model import COIN
from lnsim.cluster_certs import Certificates
from lnsim.cluster_peer import Peer, bitcoind_config, peer_config
from lnsim.cluster_process import Supervisor, command
from node.errors import Refused
from node.runtime.addresses import join_address
from node.runtime.certificates import Role

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
HUB = "hub"  # the clustered node's name, in wallets and in directories
MINER = ""  # the chain's own wallet, bitcoind's default one
FLUSH_INTERVAL_S = 0.2  # gossip reaches peers at once: nobody watches for a minute
COINS = 4  # of a wallet
COIN_SAT = COIN
COINBASE_SAT = 50 * COIN
MATURITY = 100  # blocks until a coinbase can be spent
SPARE_BLOCKS = 10  # for the miner's own fees and change
MAX_OUTPUTS = 1_000  # of one transaction, a third of what is standard
DEPTH = 6  # BOLT 7: confirmations before a channel may be announced


class Purse(Struct, frozen=True):
    """What is in a wallet at the start: separate coins, so that it can fund as many channels at once."""

    coins: int = COINS
    coin_sat: int = COIN_SAT


class Hub:
    """The node under test and its chain. Every name of a process is a key of `supervisor.children`."""

    def __init__(
        self, directory: Path, frontends: int, report: Callable[[str, str], None], listen: str = LOOPBACK
    ) -> None:
        """`listen`: the address of this machine at which peers reach frontends and chain."""
        self.directory = directory
        self.supervisor = Supervisor(directory, report)
        self.frontends = [f"f{number}" for number in range(1, frontends + 1)]
        self.node_id = ""
        self.endpoint: dict[str, Any] = {}  # the chain's
        self._listen = listen
        self._port = ReservedPort(listen)

    @property
    def address(self) -> str:
        """Where the frontends listen, all of them."""
        return join_address(self._listen, self._port.number)

    @property
    def link(self) -> str:
        """Where the backend takes frontends in."""
        return f"unix:{self.directory / HUB / 'link.sock'}"

    @property
    def api(self) -> NodeApi:
        return NodeApi(f"unix:{self.directory / HUB / 'api.sock'}")

    @property
    def chain(self) -> ChainRpc:
        return self.wallet(None)

    def wallet(self, name: str | None) -> ChainRpc:
        return ChainRpc(self.endpoint["rpc_url"], self.endpoint["user"], self.endpoint["password"], name)

    async def mine(self, blocks: int) -> int:
        """Returns the new height."""
        address = await self.wallet(MINER).call("getnewaddress")
        await self.chain.call("generatetoaddress", blocks, address)
        height: int = await self.chain.call("getblockcount")
        return height

    async def start_chain(self, purses: Mapping[str, Purse]) -> None:
        """A chain, and a wallet with coins in it for each name. Raises ProcessFailed, CallFailed."""
        directory = self.directory / "chain"
        directory.mkdir()
        total_sat = sum(purse.coins * purse.coin_sat for purse in purses.values())
        blocks = MATURITY + SPARE_BLOCKS + total_sat // COINBASE_SAT
        argv = [*command("lnsim"), "chain", "--datadir", str(directory), "--blocks", str(blocks)]
        argv += ["--host", self._listen]
        self.endpoint = (await self.supervisor.start("chain", argv)).ready
        outputs = [output for name, purse in purses.items() for output in await self._coins(name, purse)]
        for start in range(0, len(outputs), MAX_OUTPUTS):
            await self.wallet(MINER).call("sendmany", "", dict(outputs[start : start + MAX_OUTPUTS]))
            await self.mine(1)

    async def _coins(self, name: str, purse: Purse) -> list[tuple[str, str]]:
        """A new wallet's addresses, and what each is to get."""
        await self.chain.call("createwallet", name)
        amount = f"{purse.coin_sat / COIN:.8f}"
        return [(await self.wallet(name).call("getnewaddress"), amount) for _ in range(purse.coins)]

    async def start_backend(self, more: Mapping[str, Any], argv: Sequence[str] = ()) -> None:
        """`more` is added to its configuration; `argv` runs it, in place of `lnnode backend`."""
        config = {
            "data_dir": str(self.directory / HUB),
            "alias": HUB,
            "flush_interval_s": FLUSH_INTERVAL_S,
            "announce_addresses": [self.address],
            "bitcoind": bitcoind_config(self.endpoint, HUB),
            "log": {"level": "warning"},
            **more,
        }
        argv = [*(argv or [*command("lnnode"), "backend"]), self._write("backend", config)]
        child = await self.supervisor.start("backend", argv, restart=True)
        self.node_id = child.ready["node_id"]

    async def start_frontend(self, name: str, more: Mapping[str, Any]) -> None:
        """`more` is added to its configuration."""
        config = {
            "id": name,
            "listen": self.address,
            "backend": self.link,
            "reconnect_s": 0.1,
            "log": {"level": "warning"},
            **more,
        }
        argv = [*command("lnnode"), "frontend", self._write(name, config)]
        await self.supervisor.start(name, argv, restart=True)

    async def stop(self, first: Sequence[str] = ()) -> None:
        """Everything down, in the order in which it does not miss each other: peers first."""
        supervisor = self.supervisor
        for group in (first, self.frontends, ["backend"], ["chain"]):
            await supervisor.stop([name for name in group if name in supervisor.children])
        await supervisor.stop()
        self._port.close()

    def _write(self, name: str, config: dict[str, Any]) -> str:
        path = self.directory / f"{name}.yaml"
        path.write_bytes(msgspec.yaml.encode(config))
        return str(path)


class Entrance(Protocol):
    """What peers come through, in place of the port that the frontends share."""

    @property
    def address(self) -> str: ...

    async def open(self) -> None:
        """Returns once peers can come. Raises ProcessFailed, CallFailed."""
        ...

    def frontend_config(self, name: str) -> Mapping[str, Any]: ...

    def peer_config(self) -> Mapping[str, Any]:
        """The section `tor` of a peer that comes this way."""
        ...


class Cluster(Hub):
    """A node under test and simulated peers, each in a process of its own. `start`, use, `stop`."""

    def __init__(
        self,
        directory: Path,
        frontends: int,
        peers: list[str],
        report: Callable[[str, str], None],
        channels: Mapping[str, Any] | None = None,
        *,
        tls: bool = False,
    ) -> None:
        """`channels` is that section of every node's configuration; `tls`: the link is TLS over TCP."""
        super().__init__(directory, frontends, report)
        self.certificates = Certificates(directory / "certs") if tls else None
        self._link_port = ReservedPort(LOOPBACK)  # of TLS
        self._channels = dict(channels or {})
        self.peers = [Peer(name) for name in peers]
        self.entrance: Entrance | None = None  # to be set before `start`
        self.by_entrance: Sequence[Peer] = ()

    async def start(self) -> None:
        """Everything up: the chain first, all others at once. Raises ProcessFailed."""
        opening = [] if self.entrance is None else [self.entrance.open()]
        await all_of(self._start_hub(), *(peer.spawn(self.supervisor) for peer in self.peers), *opening)
        await all_of(*map(self._begin, self.peers))

    async def stop(self, first: Sequence[str] = ()) -> None:
        await super().stop([*first, *(peer.name for peer in self.peers)])
        self._link_port.close()

    async def _start_hub(self) -> None:
        await self.start_chain(dict.fromkeys((HUB, *(peer.name for peer in self.peers)), Purse()))
        await all_of(
            self.start_backend({"channels": self._channels, **self._private("main", Role.BACKEND)}),
            *(self.start_frontend(name, self._frontend(name)) for name in self.frontends),
        )

    def _frontend(self, name: str) -> dict[str, Any]:
        more = {} if self.entrance is None else self.entrance.frontend_config(name)
        return {**self._private(name, Role.FRONTEND), **more}

    def _private(self, name: str, role: Role) -> dict[str, Any]:
        """What a member's configuration says of the link, where that is TLS."""
        if self.certificates is None:
            return {}
        field = "link" if role is Role.BACKEND else "backend"
        return {
            field: f"127.0.0.1:{self._link_port.number}",
            "tls": self.certificates.section(name, role),
        }

    async def _begin(self, peer: Peer) -> None:
        config = peer_config(self.directory, peer.name, self.endpoint, FLUSH_INTERVAL_S)
        config["backend"]["channels"] = self._channels
        if self.entrance is not None and peer in self.by_entrance:
            config["backend"]["tor"] = self.entrance.peer_config()
        await peer.begin(config)


class ReservedPort:
    """A port that is ours for the whole run: bound to share, never listening, so nobody else gets it meanwhile.

    Many processes may listen there at once with SO_REUSEPORT, or one with SO_REUSEADDR.
    """

    def __init__(self, host: str) -> None:
        """Raises Refused where this machine has no such address."""
        self._socket = socket.socket()
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            self._socket.bind((host, 0))
        except OSError as error:
            self._socket.close()
            raise Refused(f"{host}: {error.strerror or error}; name an address of this machine") from error
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
