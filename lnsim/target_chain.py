"""A regtest chain that was not started here: wallets with coins for a run's peers, and blocks at its command."""

from collections.abc import Mapping

from lnsim.api_client import CallFailed
from lnsim.chain.model import COINBASE_MATURITY
from lnsim.chain.template import subsidy_sat
from lnsim.chain_control import Call, ChainControl, rpc_calls
from lnsim.cluster import Purse
from lnsim.target import ChainEndpoint
from node.errors import Refused

MAX_BLOCKS = 2_000  # for coins: a chain whose blocks pay little
REGTEST = "regtest"


class TargetChain(ChainControl):
    """Implements `lnsim.stage.Chain`. Each peer's wallet is of this run alone: a chain may have seen others."""

    def __init__(self, endpoint: ChainEndpoint, run_id: str) -> None:
        self.endpoint = endpoint
        self._rpc: Call = rpc_calls(endpoint.url, endpoint.user, endpoint.password)
        self._run_id = run_id
        self._wallets: list[str] = []
        super().__init__(self._rpc)

    def wallet(self, name: str) -> str:
        """The wallet's name on the chain, of the peer of that name."""
        return f"lnsim-{self._run_id}-{name}"

    async def check(self, *, changes_fees: bool) -> None:
        """Raises Refused with one line of why a run can't use it."""
        try:
            info = await self._rpc(None, "getblockchaininfo")
            if changes_fees:
                await self.set_feerate(None)
        except CallFailed as error:
            raise Refused(f"--chain {self.endpoint.url}: {error}") from error
        if info["chain"] != REGTEST:
            raise Refused(
                f"--chain {self.endpoint.url}: is on {info['chain']}, and blocks are made on {REGTEST} only"
            )

    async def wallet_msat(self, wallet: str) -> int:
        return await super().wallet_msat(self.wallet(wallet))

    async def endow(self, purses: Mapping[str, Purse]) -> None:
        """A new wallet for each name, its coins mature. Raises CallFailed."""
        begin = height = await self.height()
        for name, purse in purses.items():
            blocks = _blocks(purse, height)
            height += blocks
            if height - begin > MAX_BLOCKS:
                raise CallFailed(
                    f"{self.endpoint.url}: at block {begin} blocks pay next to nothing; start that chain anew"
                )
            await self._rpc(None, "createwallet", self.wallet(name))
            self._wallets.append(self.wallet(name))
            address = await self._rpc(self.wallet(name), "getnewaddress")
            await self._rpc(None, "generatetoaddress", blocks, address)
        if purses:
            await self.mine(COINBASE_MATURITY)

    async def leave(self) -> None:
        """Unload what wallets there are of this run."""
        while self._wallets:
            await self._rpc(None, "unloadwallet", self._wallets.pop())


def _blocks(purse: Purse, height: int) -> int:
    """How many from this height on pay that much: a coin each, more where blocks pay less than a coin."""
    blocks = sat = 0
    while (blocks < purse.coins or sat < purse.coins * purse.coin_sat) and blocks <= MAX_BLOCKS:
        blocks += 1
        sat += subsidy_sat(height + blocks)
    return blocks
