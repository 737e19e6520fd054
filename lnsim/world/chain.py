"""The chain of a world: the embedded one on virtual time, asked by each process through a client that takes its time."""

import asyncio
import random
from decimal import Decimal
from urllib.parse import unquote

from lnsim.chain.embedded import EmbeddedNode, LocalHints
from lnsim.chain.model import COIN
from lnsim.chain.rpc import answer
from lnsim.chain.rpc.protocol import call
from lnsim.world.runtime import WorldRuntime
from lnsim.world.world import World
from node.backend.bitcoind import Bitcoind
from node.backend.bitcoind_rpc import BitcoindRpc
from node.backend.chain_client import ChainClient

RPC_LATENCY_S = (0.000_2, 0.003)  # each way
MAX_OUTPUTS = 1_000  # of one funding transaction: well below what is standard
MINER = ""


class WorldChain:
    """Coins for wallets, and clients for processes."""

    def __init__(self, world: World, blocks: int) -> None:
        """`blocks` beyond the first hundred are coins of 50 BTC that can be given away."""
        self.node = EmbeddedNode(world.now, datadir=world.directory, blocks=blocks)
        self._world = world

    def endow(self, wallets: dict[str, tuple[int, int]]) -> None:
        """A wallet for each name, with so many coins of so many sat; in the next block."""
        outputs = []
        for name, (coins, sat) in wallets.items():
            self.node.wallets.create(name)
            session = self.node.session(name)
            outputs += [(call(session, "getnewaddress", []), str(Decimal(sat) / COIN)) for _ in range(coins)]
        for start in range(0, len(outputs), MAX_OUTPUTS):
            amounts = dict(outputs[start : start + MAX_OUTPUTS])
            call(self.node.session(MINER), "sendmany", ["", amounts])
        self.node.mine(1)

    def client(self, wallet: str, runtime: WorldRuntime) -> tuple[ChainClient, LocalHints]:
        """The production client and its notices, both gone with the process."""
        line = _Line(self.node, runtime, self._world.random(f"chain {wallet} {runtime.process.life}"))
        hints = self.node.hints()
        runtime.process.detach.append(hints.close)
        return Bitcoind(BitcoindRpc(line, lambda: ("", ""), wallet=wallet)), hints

    def close(self) -> None:
        self.node.close()


class _Line:
    """A connection to the chain's server: requests and answers are on their way for a while."""

    def __init__(self, node: EmbeddedNode, runtime: WorldRuntime, chance: random.Random) -> None:
        self._node = node
        self._process = runtime.process
        self._random = chance

    async def post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        await asyncio.sleep(self._random.uniform(*RPC_LATENCY_S))
        if self._process.is_over:
            raise asyncio.CancelledError
        _, _, name = path.partition("/wallet/")
        answered = answer(body, self._node.session(unquote(name) if path != "/" else None))
        await asyncio.sleep(self._random.uniform(*RPC_LATENCY_S))
        return answered
