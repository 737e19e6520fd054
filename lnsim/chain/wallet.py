"""A wallet on the embedded chain: which coins are its own, and signing for them."""

from collections.abc import Mapping

import wallycore as wally
from msgspec import Struct
from msgspec.structs import replace

from lnsim.chain.chain import Chain
from lnsim.chain.consensus import is_coinbase
from lnsim.chain.keys import KeyPlace, Keys
from lnsim.chain.model import COINBASE_MATURITY, Coin, Outpoint
from node.bitcoin.block import ChainTransaction, parse_transaction, serialize_transaction
from node.bitcoin.transaction import Input
from node.errors import Refused

FORGET_DEPTH = 100  # a spend this deep is never undone here


class WalletCoin(Struct, frozen=True):
    outpoint: Outpoint
    coin: Coin
    confirmations: int
    trusted: bool  # confirmed, or made by ourselves

    @property
    def mature(self) -> bool:
        return not self.coin.coinbase or self.confirmations > COINBASE_MATURITY


class WalletTransaction(Struct, frozen=True):
    tx: ChainTransaction
    time_s: int
    spent: dict[int, Coin]  # our coins by input index


class Wallet:
    """One named wallet. The book tells it what happens on the chain."""

    def __init__(self, name: str, chain: Chain, seed: bytes) -> None:
        self.name = name
        self.chain = chain
        self.keys = Keys(seed)
        self.locked: set[Outpoint] = set()
        self.transactions: dict[bytes, WalletTransaction] = {}
        self._coins: dict[Outpoint, Coin] = {}

    def owns(self, script: bytes) -> bool:
        return script in self.keys.places

    def see(self, tx: ChainTransaction) -> None:
        """Take note of a transaction that the mempool or a block brought."""
        spent = {n: coin for n, i in enumerate(tx.inputs) if (coin := self._coins.get(i.outpoint))}
        received = [vout for vout, output in enumerate(tx.outputs) if self.owns(output.script)]
        for vout in received:
            output = tx.outputs[vout]
            self._coins[tx.txid, vout] = Coin(output.sat, output.script, None, is_coinbase(tx))
        if (spent or received) and tx.txid not in self.transactions:
            self.transactions[tx.txid] = WalletTransaction(tx, int(self.chain.now()), spent)
        for i in tx.inputs:
            self.locked.discard(i.outpoint)

    def forget(self, tx: ChainTransaction) -> None:
        """Drop the coins that a deeply confirmed transaction spent."""
        for i in tx.inputs:
            self._coins.pop(i.outpoint, None)

    def coins(self) -> list[WalletCoin]:
        """Every unspent coin of ours, locked and immature ones included."""
        found = []
        for outpoint in self._coins:
            coin = self.chain.coin(outpoint)
            if coin is not None:
                depth = 0 if coin.height is None else self.chain.height - coin.height + 1
                found.append(WalletCoin(outpoint, coin, depth, depth > 0 or self._is_own(outpoint[0])))
        return found

    def spendable(self, min_depth: int = 0) -> list[WalletCoin]:
        return [
            c
            for c in self.coins()
            if c.trusted and c.mature and c.confirmations >= min_depth and c.outpoint not in self.locked
        ]

    def sign(
        self, raw: bytes, known: Mapping[Outpoint, Coin], sighash: int = wally.WALLY_SIGHASH_ALL
    ) -> bytes:
        """Sign every input whose coin is ours; `known` adds coins that the chain has not seen. Raises Refused."""
        tx = parse_transaction(raw)
        try:
            parsed = wally.tx_from_bytes(raw, wally.WALLY_TX_FLAG_USE_WITNESS)
        except ValueError:
            raise Refused("not a transaction that can be signed") from None
        inputs = list(tx.inputs)
        for index, i in enumerate(tx.inputs):
            coin = known.get(i.outpoint) or self.chain.gate.coin(i.outpoint)
            place = self.keys.places.get(coin.script) if coin else None
            if coin and place:
                inputs[index] = self._signed(i, index, parsed, coin, place, sighash)
        return serialize_transaction(tx.version, inputs, tx.outputs, tx.locktime)

    def _signed(
        self, i: Input, index: int, parsed: object, coin: Coin, place: KeyPlace, sighash: int
    ) -> Input:
        code = b"\x76\xa9\x14" + coin.script[2:] + b"\x88\xac"  # BIP 143: the script code of P2WPKH
        digest = wally.tx_get_btc_signature_hash(
            parsed, index, code, coin.sat, sighash, wally.WALLY_TX_FLAG_USE_WITNESS
        )
        signature = self.keys.sign(place, bytes(digest)) + bytes([sighash])
        return replace(i, witness=(signature, self.keys.public(place)))

    def _is_own(self, txid: bytes, depth: int = 0) -> bool:
        """Whether an unconfirmed transaction spends nothing but coins that we trust."""
        entry = self.chain.mempool.entries.get(txid)
        if entry is None:
            return txid in self.chain.ledger.index
        return depth <= FORGET_DEPTH and all(
            i.outpoint in self._coins and self._is_own(i.txid, depth + 1) for i in entry.tx.inputs
        )
