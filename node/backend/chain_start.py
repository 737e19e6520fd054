"""A backend's first questions to bitcoind: waits where time mends it, refuses where only an operator can."""

import asyncio
from collections.abc import Callable

from msgspec import Struct

from node.backend.chain_client import ChainClient, ChainState, ChainUnavailable, CredentialsRefused, RpcError
from node.backend.chain_watcher import ChainWatcher
from node.backend.identity import CHAIN_HASHES
from node.backend.outlook import MAX_BEHIND, MAX_BLOCK_GAP_S, Outlook
from node.errors import Misconfigured
from node.runtime import logs
from node.runtime.config import BackendConfig
from node.runtime.runtime import Runtime

RETRY_S = 1.0
SAY_EVERY = 60  # tries: what is waited for is said again, so that it is in the log of today
NO_SUCH_WALLET, WHICH_WALLET = -18, -19

log = logs.get("chain_start")


class Found(Struct, frozen=True):
    state: ChainState
    wallet_script: bytes  # where closes pay to


def outlook_of(runtime: Runtime, config: BackendConfig, state: ChainState, watcher: ChainWatcher) -> Outlook:
    """At the start: the last block is as old as it says, except where blocks come on demand."""
    gap_s = config.bitcoind.max_block_gap_s
    if gap_s is None and config.network != "regtest":
        gap_s = MAX_BLOCK_GAP_S
    age_s = 0.0 if config.network == "regtest" else runtime.now() - state.time_s
    return Outlook(runtime, lambda: watcher.failure, gap_s, age_s)


class ChainStart:
    """`run` returns once bitcoind is there, on our network, at its tip, with our wallet."""

    def __init__(self, client: ChainClient, config: BackendConfig, waits: Callable[[str], None]) -> None:
        """`waits` hears what is waited for, for the health report."""
        self._client = client
        self._config = config
        self._waits = waits

    async def run(self) -> Found:
        """Raises Misconfigured with the field and the remedy."""
        said, tries = "", 0
        while True:
            try:
                found = await self._ask()
            except CredentialsRefused as error:
                raise Misconfigured(f"bitcoind: {error}") from error
            except ChainUnavailable as error:
                why = f"waiting for bitcoind at {self._config.bitcoind.url}: {error}"
            else:
                if isinstance(found, Found):
                    if tries:
                        log.info("bitcoind_is_there", height=found.state.tip.height)
                    self._waits("")
                    return found
                why = f"waiting for bitcoind to catch up: {found}"
            self._waits(why)
            if not said or tries % SAY_EVERY == 0:
                log.warning("waiting", why=why)
            said, tries = why, tries + 1
            await asyncio.sleep(RETRY_S)

    async def _ask(self) -> Found | str:
        """What there is, or how far it is."""
        config = self._config
        (genesis,) = await self._client.block_hashes([0])
        if genesis != CHAIN_HASHES[config.network]:
            actual = next((name for name, known in CHAIN_HASHES.items() if known == genesis), "another chain")
            raise Misconfigured(
                f"network: is {config.network}, and bitcoind at {config.bitcoind.url} is on {actual}; "
                "correct network, or bitcoind.url"
            )
        state = await self._client.state()
        behind = state.headers - state.tip.height
        # of an idle regtest bitcoind thinks that it is far behind
        if behind > MAX_BEHIND or (state.downloading and config.network != "regtest"):
            return f"block {state.tip.height} of {max(state.headers, state.tip.height)}"
        self._check_pruning(state)
        return Found(state, await self._wallet_script())

    def _check_pruning(self, state: ChainState) -> None:
        if state.pruned_below is None:
            return
        if not self._config.assume_channels_valid:
            raise Misconfigured(
                f"bitcoind.url: this bitcoind is pruned, its blocks below {state.pruned_below} are gone, and public "
                "channels can't be looked up; set prune=0 in bitcoin.conf and start it with -reindex, or set "
                "assume_channels_valid: true"
            )
        log.warning("bitcoind_is_pruned", below=state.pruned_below)

    async def _wallet_script(self) -> bytes:
        """Also shows whether the wallet is there."""
        name = self._config.bitcoind.wallet
        try:
            return await self._client.new_script()
        except RpcError as error:
            remedy = f"`bitcoin-cli createwallet {name}`, or `loadwallet {name}` if it was made before"
            if error.code == WHICH_WALLET:
                remedy = "several are loaded: name one"
            elif error.code != NO_SUCH_WALLET:
                remedy = "it must have private keys, and be unlocked"
            raise Misconfigured(f'bitcoind.wallet: "{name}": {error}; {remedy}') from error
