"""Moving a run's chain and asking it for money: the `Chain` of `lnsim.stage`, over RPC or on an embedded chain in process.

Both forms say the same RPC calls, so a foreign bitcoind on regtest serves as well, all but its fee estimates.
Blocks pay nobody: what they earn is in no wallet, so wallets change by payments and fees alone.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from lnsim.api_client import CallFailed, ChainRpc
from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.keys import address_of
from lnsim.chain.model import COIN
from lnsim.chain.rpc.protocol import call as local_call
from lnsim.chain.template import subsidy_sat
from node.bitcoin.block import parse_block
from node.errors import Refused

ESTIMATE_TARGETS = (
    1,
    2,
    3,
    6,
    12,
    24,
    48,
    144,
    504,
    1_008,
)  # blocks; a change holds for all that a node may ask
FIRST_TIP = bytes(32)  # before any reorg
BALANCES = ("trusted", "untrusted_pending", "immature")  # of getbalances: together, all that is not spent

# (wallet's name, None for the chain itself; method; parameters) -> result. Raises CallFailed.
Call = Callable[..., Awaitable[Any]]


class ChainControl:
    """Implements `lnsim.stage.Chain`; every method raises CallFailed with the chain's own words."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._first_estimates: dict[int, Any] | None = None  # before any change of ours

    async def height(self) -> int:
        return int(await self._call(None, "getblockcount"))

    async def mine(self, blocks: int) -> int:
        await self._mine(blocks, FIRST_TIP)
        return await self.height()

    async def reorg(self, depth: int) -> int:
        """Transactions of the lost blocks return to the mempool, and are mined again as far as they are still valid."""
        height = await self.height()
        if not 0 < depth <= height:
            raise CallFailed(f"reorg: depth is 1 to {height} at this height")
        lost_tip = await self._call(None, "getbestblockhash")
        await self._call(None, "invalidateblock", await self._block_hash(height - depth + 1))
        await self._mine(depth + 1, bytes.fromhex(lost_tip))
        return await self.height()

    async def set_feerate(self, feerate_per_kw: int | None) -> None:
        if self._first_estimates is None:
            self._first_estimates = {target: await self._estimate(target) for target in ESTIMATE_TARGETS}
        for target, first in self._first_estimates.items():
            estimate = first if feerate_per_kw is None else f"{Decimal(4 * feerate_per_kw) / COIN:.8f}"
            await self._set_estimate(target, estimate)

    async def wallet_msat(self, wallet: str) -> int:
        """Immature coins included; "" is the wallet without a name."""
        mine = (await self._call(wallet, "getbalances"))["mine"]
        return sum(1_000 * round(mine[kind] * COIN) for kind in BALANCES)

    async def fees_sat(self, from_height: int, to_height: int) -> int:
        """What the coinbases took above their subsidies: bitcoind's miner and ours leave nothing."""
        total_sat = 0
        for height in range(from_height, to_height + 1):
            raw = bytes.fromhex(await self._call(None, "getblock", await self._block_hash(height), 0))
            coinbase = parse_block(raw).transactions[0]
            total_sat += sum(output.sat for output in coinbase.outputs) - subsidy_sat(height)
        return total_sat

    async def _mine(self, blocks: int, lost_tip: bytes) -> None:
        await self._call(None, "generatetoaddress", blocks, nobody(lost_tip))

    async def _block_hash(self, height: int) -> Any:
        return await self._call(None, "getblockhash", height)

    async def _estimate(self, target: int) -> Any:
        """As text, for a float is no amount; None where the chain has none."""
        rate = (await self._call(None, "estimatesmartfee", target)).get("feerate")
        return None if rate is None else f"{Decimal(rate):.8f}"

    async def _set_estimate(self, target: int, estimate: str | None) -> None:
        try:
            await self._call(None, "setfeeestimate", target, estimate)
        except CallFailed as error:
            if "Method not found" not in str(error):
                raise
            raise CallFailed(
                "this chain can't be told its fee estimates: setfeeestimate is a call of the embedded chain, "
                "and bitcoind has none for it; leave fee changes out of a scenario that runs on it"
            ) from error


def over_rpc(url: str, user: str, password: str) -> ChainControl:
    """A chain in another process: the embedded one behind its server, or a bitcoind on regtest."""
    return ChainControl(rpc_calls(url, user, password))


def rpc_calls(url: str, user: str, password: str) -> Call:

    async def call(wallet: str | None, method: str, *params: Any) -> Any:
        name = None if wallet is None else quote(wallet, safe="")
        return await ChainRpc(url, user, password, name).call(method, *params)

    return call


def embedded(node: EmbeddedNode) -> ChainControl:
    """A chain in this process, without sockets and without waiting: each call is done before anybody else runs."""
    return ChainControl(partial(_embedded_call, node))


async def _embedded_call(node: EmbeddedNode, wallet: str | None, method: str, *params: Any) -> Any:
    try:
        return local_call(node.session(wallet), method, list(params))
    except Refused as error:
        raise CallFailed(f"{method}: {error}") from error


def nobody(lost_tip: bytes) -> str:
    """An address without a key. Another one for each tip that was lost: a block mined again must not be the one that was invalidated."""
    address = address_of(b"\x00\x20" + sha256(b"mined for nobody" + lost_tip).digest())
    assert address is not None, "a witness program has an address"
    return address
