"""What one RPC call works on."""

from msgspec import Struct

from lnsim.chain.chain import Chain
from lnsim.chain.rpc.errors import WALLET_NOT_FOUND, WALLET_NOT_SPECIFIED, RpcError
from lnsim.chain.wallet import Wallet
from lnsim.chain.wallets import WalletBook


class Session(Struct, frozen=True):
    """`wallet_name` comes from the path `/wallet/NAME`; None means the only wallet loaded."""

    chain: Chain
    wallets: WalletBook
    started_s: float
    zmq_address: str | None = None
    wallet_name: str | None = None

    @property
    def wallet(self) -> Wallet:
        loaded = self.wallets.loaded
        if self.wallet_name is not None:
            if self.wallet_name not in loaded:
                raise RpcError(WALLET_NOT_FOUND, "Requested wallet does not exist or is not loaded")
            return loaded[self.wallet_name]
        if not loaded:
            text = (
                "No wallet is loaded. Load a wallet using loadwallet or create a new one with createwallet."
            )
            raise RpcError(WALLET_NOT_FOUND, text)
        if len(loaded) > 1:
            text = "Multiple wallets are loaded. Please select which wallet to use by requesting the RPC through the /wallet/<walletname> URI path."
            raise RpcError(WALLET_NOT_SPECIFIED, text)
        return next(iter(loaded.values()))
