"""Following the active chain block by block, across reorgs, by asking: right even if every notice is lost."""

from collections.abc import AsyncIterator

from msgspec import Struct

from node.backend.chain_client import BlockId, ChainClient, ChainUnavailable
from node.bitcoin.block import Block, parse_block

MAX_REORG = 10_000  # blocks; a chain that takes back more than this is not the one we started on


class BlockConnected(Struct, frozen=True):
    height: int
    block: Block
    raw: bytes

    @property
    def id(self) -> BlockId:
        return BlockId(self.height, self.block.hash)


class BlockDisconnected(Struct, frozen=True):
    """`tip` is the parent, now the last block that stands."""

    height: int
    hash: bytes
    tip: BlockId


class BlockFollower:
    """Keeps one position on the chain and moves it to the chain's tip."""

    def __init__(self, client: ChainClient, tip: BlockId) -> None:
        self.tip = tip
        self._client = client

    async def advance(self) -> AsyncIterator[BlockConnected | BlockDisconnected]:
        """Every step from our tip to the chain's, in order; each has happened once it is yielded."""
        undone = 0
        while True:
            here, following = await self._client.block_hashes([self.tip.height, self.tip.height + 1])
            if here != self.tip.hash:
                undone += 1
                if undone > MAX_REORG:
                    raise ChainUnavailable(f"a reorg of more than {MAX_REORG} blocks")
                yield await self._step_back()
            elif following is None:
                return
            elif (event := await self._step_forward(following)) is not None:
                yield event

    async def _step_back(self) -> BlockDisconnected:
        gone = self.tip
        parent = await self._client.previous_block(gone.hash)
        if parent is None:
            raise ChainUnavailable(f"the chain does not know block {gone.hash[::-1].hex()} at {gone.height}")
        self.tip = parent
        return BlockDisconnected(gone.height, gone.hash, parent)

    async def _step_forward(self, block_hash: bytes) -> BlockConnected | None:
        """The next block; None where the chain turned while we asked."""
        raw = await self._client.block(block_hash)
        block = None if raw is None else parse_block(raw)
        if raw is None or block is None or block.previous != self.tip.hash:
            return None
        self.tip = BlockId(self.tip.height + 1, block.hash)
        return BlockConnected(self.tip.height, block, raw)
