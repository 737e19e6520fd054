"""Where a short channel id points: the funding output that a channel announcement claims."""

import asyncio
from collections import OrderedDict

from msgspec import Struct

from node.backend.chain_client import ChainClient
from node.bitcoin.block import parse_transaction

MAX_CACHED_BLOCKS = 1_000  # about 100 kB each on mainnet
MAX_LOOKUPS = 8  # at a time, so that gossip leaves the chain client room for channels


class FundingOutput(Struct, frozen=True):
    txid: bytes
    vout: int
    sat: int
    script: bytes
    unspent: bool


class ChannelLookup:
    def __init__(self, client: ChainClient) -> None:
        self._client = client
        self._txids: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()
        self._room = asyncio.Semaphore(MAX_LOOKUPS)

    async def lookup_channel(self, short_channel_id: int) -> FundingOutput | None:
        """The output, spent or not; None if the chain has no such output. Raises ChainUnavailable."""
        # BOLT 7: 3 bytes of block height, 3 of transaction index, 2 of output index
        height, tx_index = short_channel_id >> 40, short_channel_id >> 16 & 0xFFFFFF
        vout = short_channel_id & 0xFFFF
        async with self._room:
            block_hash = (await self._client.block_hashes([height]))[0]
            if block_hash is None:
                return None
            txids = await self._block_txids(block_hash)
            if tx_index >= len(txids):
                return None
            return await self._output(block_hash, txids[tx_index], vout)

    async def _output(self, block_hash: bytes, txid: bytes, vout: int) -> FundingOutput | None:
        found = await self._client.txout(txid, vout, with_mempool=False)
        if found is not None:
            return FundingOutput(txid, vout, found.sat, found.script, unspent=True)
        raw = await self._client.raw_transaction(txid, block_hash)
        outputs = () if raw is None else parse_transaction(raw).outputs
        if vout >= len(outputs):
            return None
        return FundingOutput(txid, vout, outputs[vout].sat, outputs[vout].script, unspent=False)

    async def _block_txids(self, block_hash: bytes) -> tuple[bytes, ...]:
        """By hash, so that a reorg needs no care."""
        txids = self._txids.get(block_hash)
        if txids is None:
            txids = await self._client.block_txids(block_hash) or ()
            self._txids[block_hash] = txids
            if len(self._txids) > MAX_CACHED_BLOCKS:
                self._txids.popitem(last=False)
        else:
            self._txids.move_to_end(block_hash)
        return txids
