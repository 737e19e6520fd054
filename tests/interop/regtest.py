"""The embedded chain for the interop tests: in this process, over its bitcoind RPC, with blocks on demand."""

import time
from typing import Self

from chain_rpc import JsonRpc
from processes import until

from lnsim.chain.server import ChainServer, ServerOptions

MEMPOOL_S = 20


class Regtest:
    """`async with Regtest() as chain`: `chain.rpc` is what the drivers want."""

    def __init__(self) -> None:
        self._server = ChainServer(time.time, ServerOptions(user="lnsim", password="lnsim", zmq_port=None))
        self.rpc: JsonRpc

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        endpoint = self._server.endpoint
        self.rpc = JsonRpc(endpoint.rpc_url, endpoint.user, endpoint.password)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)

    @property
    def height(self) -> int:
        return self._server.chain.height

    async def mine(self, blocks: int = 1, *synced) -> None:
        """Make blocks of what the mempool holds, and wait until these peers have seen them."""
        await self.rpc.call("generatetoaddress", blocks, await self.rpc.call("getnewaddress"))
        for peer in synced:
            await peer.synced(self.height)

    async def mempool(self, transactions: int = 1) -> list[str]:
        """The ids of what waits to be mined, once it is at least so many transactions."""

        async def waiting() -> list[str] | None:
            known = await self.rpc.call("getrawmempool")
            return known if len(known) >= transactions else None

        return await until(waiting, MEMPOOL_S, f"{transactions} transactions in the mempool")
