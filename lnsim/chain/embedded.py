"""The embedded chain with its wallets in one process: for a server around it, or for a simulation inside."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from lnsim.chain.chain import Chain
from lnsim.chain.model import Event, TipChanged, TransactionAdded
from lnsim.chain.rpc import Session, answer
from lnsim.chain.wallets import WalletBook
from node.backend.bitcoind import Bitcoind
from node.backend.bitcoind_rpc import BitcoindRpc

DEFAULT_BLOCKS = 110  # ten mature coins
DEFAULT_SEED = b"embedded chain"
MAX_HINTS = 10_000


class EmbeddedNode:
    """A chain of `blocks` blocks whose coins belong to the wallet `wallet`."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        datadir: Path | None = None,
        blocks: int = DEFAULT_BLOCKS,
        wallet: str = "",
        wallet_seed: bytes = DEFAULT_SEED,
    ) -> None:
        self.chain = Chain(now, datadir)
        self.wallets = WalletBook(self.chain, wallet_seed)
        self.miner_script = self.wallets.create(wallet).keys.new_script(change=False)
        self.chain.bootstrap(self.miner_script, blocks)
        self._started_s = now()

    def close(self) -> None:
        self.chain.close()

    def mine(self, count: int = 1) -> list[bytes]:
        return self.chain.mine(self.miner_script, count)

    def session(self, wallet_name: str | None = None, zmq_address: str | None = None) -> Session:
        return Session(self.chain, self.wallets, self._started_s, zmq_address, wallet_name)

    def client(self, wallet: str | None = None) -> Bitcoind:
        """The production client without a network in between."""
        return Bitcoind(BitcoindRpc(_LocalTransport(self), lambda: ("", ""), wallet=wallet))

    def hints(self) -> "LocalHints":
        return LocalHints(self.chain)


class LocalHints:
    """What ZMQ would say, said directly."""

    def __init__(self, chain: Chain) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_HINTS)
        self._unsubscribe = chain.subscribe(self._receive)

    async def next(self) -> bytes | None:
        return await self._queue.get()

    def close(self) -> None:
        self._unsubscribe()

    def _receive(self, event: Event) -> None:
        if self._queue.full():
            return  # hints may be lost, as with ZMQ
        match event:
            case TransactionAdded(tx):
                self._queue.put_nowait(tx.raw)
            case TipChanged():
                self._queue.put_nowait(None)
            case _:
                pass


class _LocalTransport:
    def __init__(self, node: EmbeddedNode) -> None:
        self._node = node

    async def post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        _, _, name = path.partition("/wallet/")
        return answer(body, self._node.session(unquote(name) if path != "/" else None))
