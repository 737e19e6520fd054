"""The embedded chain's RPC: importing it fills the table of methods."""

from lnsim.chain.rpc import blocks, mempool, mining, wallet_coins, wallet_psbt, wallet_spend
from lnsim.chain.rpc.protocol import answer
from lnsim.chain.rpc.session import Session

__all__ = ["Session", "answer", "blocks", "mempool", "mining", "wallet_coins", "wallet_psbt", "wallet_spend"]
