"""The wallets of one chain, by name."""

from hashlib import sha256

from lnsim.chain.chain import Chain
from lnsim.chain.model import BlockConnected, Event, TransactionAdded
from lnsim.chain.wallet import FORGET_DEPTH, Wallet

MAX_WALLETS = 10_000


class WalletBook:
    """Creates wallets, tells them what happens, and knows which are loaded."""

    def __init__(self, chain: Chain, seed: bytes) -> None:
        self.loaded: dict[str, Wallet] = {}
        self._known: dict[str, Wallet] = {}
        self._chain = chain
        self._seed = seed
        chain.subscribe(self._receive)

    def create(self, name: str) -> Wallet:
        """A new wallet; its keys follow from the book's seed and its name."""
        if name in self._known or len(self._known) >= MAX_WALLETS:
            raise KeyError(name)
        wallet = Wallet(name, self._chain, sha256(self._seed + name.encode()).digest())
        self._known[name] = self.loaded[name] = wallet
        return wallet

    def load(self, name: str) -> Wallet:
        """Load a wallet created before; raises KeyError for an unknown name."""
        self.loaded[name] = self._known[name]
        return self.loaded[name]

    def exists(self, name: str) -> bool:
        return name in self._known

    def names(self) -> list[str]:
        return list(self._known)

    def unload(self, name: str) -> None:
        del self.loaded[name]

    def _receive(self, event: Event) -> None:
        match event:
            case TransactionAdded(tx):
                for wallet in self._known.values():
                    wallet.see(tx)
            case BlockConnected(block, transactions):
                for wallet in self._known.values():
                    for tx in transactions:
                        wallet.see(tx)
                self._forget(block.height - FORGET_DEPTH)
            case _:
                pass

    def _forget(self, height: int) -> None:
        if height > 0:
            for tx in self._chain.ledger.transactions(self._chain.ledger.at(height))[1:]:
                for wallet in self._known.values():
                    wallet.forget(tx)
