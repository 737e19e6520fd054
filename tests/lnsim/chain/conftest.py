"""A chain with some coins, and ways to spend them."""

from collections.abc import Iterator

import pytest

from lnsim.chain.embedded import EmbeddedNode
from lnsim.chain.funding import FundingOptions, fund
from lnsim.chain.wallet import Wallet, WalletCoin
from node.bitcoin.block import ChainTransaction, parse_transaction, serialize_transaction
from node.bitcoin.transaction import Input, Output

START_S = 1_700_000_000.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time_s = START_S

    def __call__(self) -> float:
        return self.time_s


class Bench:
    """One embedded node, its miner's wallet, and transactions to order."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.node = EmbeddedNode(self.clock)
        self.chain = self.node.chain
        self.wallet: Wallet = self.node.wallets.loaded[""]

    def script(self) -> bytes:
        return self.wallet.keys.new_script(change=False)

    def coins(self) -> list[WalletCoin]:
        return self.wallet.spendable()

    def spend(
        self,
        outpoints,
        *outputs: Output,
        version: int = 2,
        locktime: int = 0,
        sequence: int = 0xFFFFFFFD,
        known=None,
    ) -> ChainTransaction:
        """Exactly these inputs and outputs, signed."""
        inputs = [Input(txid, vout, sequence) for txid, vout in outpoints]
        raw = serialize_transaction(version, inputs, outputs, locktime)
        return parse_transaction(self.wallet.sign(raw, known or {}))

    def simple(self, fee_sat: int, coin: WalletCoin | None = None, **kwargs) -> ChainTransaction:
        """One coin to ourselves, less the fee."""
        coin = coin or self.coins()[0]
        return self.spend([coin.outpoint], Output(coin.coin.sat - fee_sat, self.script()), **kwargs)

    def child(self, parent: ChainTransaction, fee_sat: int, vout: int = 0, **kwargs) -> ChainTransaction:
        """Spends a wallet output of a transaction that need not be known to the chain."""
        from lnsim.chain.model import Coin

        output = parent.outputs[vout]
        known = {(parent.txid, vout): Coin(output.sat, output.script, None)}
        return self.spend(
            [(parent.txid, vout)], Output(output.sat - fee_sat, self.script()), known=known, **kwargs
        )

    def pay(self, script: bytes, sat: int, feerate: int = 2000) -> ChainTransaction:
        funded = fund(
            self.wallet, 2, (), [Output(sat, script)], 0, FundingOptions(feerate_sat_per_kvb=feerate)
        )
        tx = parse_transaction(self.wallet.sign(funded.raw, {}))
        self.chain.submit(tx.raw)
        return tx

    def mine(self, count: int = 1) -> list[bytes]:
        return self.node.mine(count)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.node.close()


@pytest.fixture(scope="session")
def new_bench() -> type[Bench]:
    """For properties, which want a chain for every example."""
    return Bench
