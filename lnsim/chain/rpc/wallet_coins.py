"""RPC: wallets, their addresses, coins and history."""

from decimal import Decimal
from typing import Any

from lnsim.chain.keys import address_of
from lnsim.chain.rpc.errors import (
    MISC,
    NO_KEY,
    PARAMETER,
    WALLET,
    WALLET_ALREADY_LOADED,
    WALLET_NOT_FOUND,
    RpcError,
)
from lnsim.chain.rpc.protocol import method
from lnsim.chain.rpc.render import transaction_json
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import address_script, amount, hash_of, outpoint_of, show
from lnsim.chain.standard import script_type
from lnsim.chain.wallet import Wallet, WalletCoin, WalletTransaction

MAX_CONFIRMATIONS = 9_999_999
ADDRESS_TYPES = ("", "bech32")


@method
def createwallet(
    session: Session,
    wallet_name: str,
    disable_private_keys: bool = False,
    blank: bool = False,
    passphrase: str = "",
    avoid_reuse: bool = False,
    descriptors: bool = True,
    load_on_startup: bool = False,
) -> Any:
    if disable_private_keys or blank or passphrase:
        raise RpcError(WALLET, "the embedded chain has plain wallets only")
    if session.wallets.exists(wallet_name):
        raise RpcError(
            WALLET,
            "Wallet file verification failed. Failed to create database path. Database already exists.",
        )
    session.wallets.create(wallet_name)
    return {"name": wallet_name}


@method
def loadwallet(session: Session, filename: str, load_on_startup: bool = False) -> Any:
    if filename in session.wallets.loaded:
        raise RpcError(WALLET_ALREADY_LOADED, f'Wallet "{filename}" is already loaded.')
    if not session.wallets.exists(filename):
        raise RpcError(WALLET_NOT_FOUND, "Wallet file verification failed. Path does not exist.")
    session.wallets.load(filename)
    return {"name": filename}


@method
def unloadwallet(session: Session, wallet_name: str | None = None, load_on_startup: bool = False) -> Any:
    name = session.wallet.name if wallet_name is None else wallet_name
    if name not in session.wallets.loaded:
        raise RpcError(WALLET_NOT_FOUND, "Requested wallet does not exist or is not loaded")
    session.wallets.unload(name)
    return {"warnings": []}


@method
def listwallets(session: Session) -> Any:
    return list(session.wallets.loaded)


@method
def listwalletdir(session: Session) -> Any:
    return {"wallets": [{"name": name} for name in session.wallets.names()]}


@method
def getwalletinfo(session: Session) -> Any:
    wallet = session.wallet
    return {
        "walletname": wallet.name,
        "format": "memory",
        "txcount": len(wallet.transactions),
        "private_keys_enabled": True,
        "descriptors": True,
        "scanning": False,
    }


@method
def getnewaddress(session: Session, label: str = "", address_type: str = "") -> Any:
    return _new_address(session.wallet, address_type, change=False)


@method
def getrawchangeaddress(session: Session, address_type: str = "") -> Any:
    return _new_address(session.wallet, address_type, change=True)


@method
def getaddressinfo(session: Session, address: str) -> Any:
    wallet, script = session.wallet, address_script(address)
    place = wallet.keys.places.get(script)
    shown: dict[str, Any] = {
        "address": address,
        "scriptPubKey": script.hex(),
        "ismine": place is not None,
        "solvable": place is not None,
        "iswatchonly": False,
        "isscript": script_type(script) in ("scripthash", "witness_v0_scripthash"),
        "iswitness": script[0] in (0, 0x51),
        "ischange": place is not None and place.branch == 1,
        "labels": [""] if place and place.branch == 0 else [],
    }
    if shown["iswitness"]:
        shown |= {"witness_version": 0 if script[0] == 0 else 1, "witness_program": script[2:].hex()}
    if place:
        shown |= {
            "pubkey": wallet.keys.public(place).hex(),
            "hdkeypath": place.path,
            "hdmasterfingerprint": wallet.keys.fingerprint.hex(),
        }
    return shown


@method
def getbalances(session: Session) -> Any:
    coins = session.wallet.coins()
    mature = [c for c in coins if c.mature]
    return {
        "mine": {
            "trusted": _sum(c for c in mature if c.trusted),
            "untrusted_pending": _sum(c for c in mature if not c.trusted),
            "immature": _sum(c for c in coins if not c.mature),
        },
        "lastprocessedblock": {"hash": show(session.chain.tip.hash), "height": session.chain.height},
    }


@method
def getbalance(
    session: Session,
    dummy: str = "*",
    minconf: int = 0,
    include_watchonly: bool = False,
    avoid_reuse: bool = False,
) -> Any:
    if dummy != "*":
        raise RpcError(-32, 'dummy first argument must be excluded or set to "*".')
    coins = session.wallet.coins()
    return _sum(c for c in coins if c.trusted and c.mature and c.confirmations >= minconf)


@method
def listunspent(
    session: Session,
    minconf: int = 1,
    maxconf: int = MAX_CONFIRMATIONS,
    addresses: list[Any] = [],  # noqa: B006 - read only, and the parameter's type is its annotation
    include_unsafe: bool = True,
    query_options: dict[str, Any] = {},  # noqa: B006 - the same
) -> Any:
    wallet, wanted = session.wallet, {address_script(address) for address in addresses}
    return [
        _coin_entry(wallet, c)
        for c in wallet.coins()
        if c.mature
        and minconf <= c.confirmations <= maxconf
        and (include_unsafe or c.trusted)
        and (not wanted or c.coin.script in wanted)
        and c.outpoint not in wallet.locked
    ]


@method
def lockunspent(
    session: Session, unlock: bool, transactions: list[Any] | None = None, persistent: bool = False
) -> Any:
    wallet = session.wallet
    if transactions is None:
        if unlock:
            wallet.locked.clear()
        return True
    outpoints = [outpoint_of(value) for value in transactions]
    for outpoint in outpoints:
        if unlock and outpoint not in wallet.locked:
            raise RpcError(PARAMETER, "Invalid parameter, expected locked output")
        if not unlock and session.chain.coin(outpoint) is None:
            raise RpcError(PARAMETER, "Invalid parameter, expected unspent output")
        if not unlock and outpoint in wallet.locked:
            raise RpcError(PARAMETER, "Invalid parameter, output already locked")
    if unlock:
        wallet.locked.difference_update(outpoints)
    else:
        wallet.locked.update(outpoints)
    return True


@method
def listlockunspent(session: Session) -> Any:
    return [{"txid": show(txid), "vout": vout} for txid, vout in sorted(session.wallet.locked)]


@method
def gettransaction(
    session: Session, txid: str, include_watchonly: bool = False, verbose: bool = False
) -> Any:
    wallet = session.wallet
    known = wallet.transactions.get(hash_of(txid, "txid"))
    if known is None:
        raise RpcError(NO_KEY, "Invalid or non-wallet transaction id")
    shown = _history_entry(session, wallet, known)
    shown["hex"] = known.tx.raw.hex()
    if verbose:
        shown["decoded"] = transaction_json(known.tx)
    return shown


@method
def listtransactions(
    session: Session, label: str = "*", count: int = 10, skip: int = 0, include_watchonly: bool = False
) -> Any:
    if count < 0 or skip < 0:
        raise RpcError(PARAMETER, "Negative count" if count < 0 else "Negative from")
    wallet = session.wallet
    entries = [
        {**detail, **{k: v for k, v in shown.items() if k != "details"}}
        for known in list(wallet.transactions.values())[-(count + skip) :]
        for shown in [_history_entry(session, wallet, known)]
        for detail in shown["details"]
    ]
    end = len(entries) - skip
    return entries[max(end - count, 0) : max(end, 0)]


def _new_address(wallet: Wallet, address_type: str, *, change: bool) -> str:
    if address_type not in ADDRESS_TYPES:
        raise RpcError(NO_KEY, f"Unknown address type '{address_type}'")
    address = address_of(wallet.keys.new_script(change=change))
    if address is None:
        raise RpcError(MISC, "a wallet's script always has an address")
    return address


def _sum(coins: Any) -> Decimal:
    return amount(sum(c.coin.sat for c in coins))


def _coin_entry(wallet: Wallet, c: WalletCoin) -> dict[str, Any]:
    return {
        "txid": show(c.outpoint[0]),
        "vout": c.outpoint[1],
        "address": address_of(c.coin.script),
        "label": "",
        "scriptPubKey": c.coin.script.hex(),
        "amount": amount(c.coin.sat),
        "confirmations": c.confirmations,
        "spendable": True,
        "solvable": True,
        "safe": c.trusted,
    }


def _history_entry(session: Session, wallet: Wallet, known: WalletTransaction) -> dict[str, Any]:
    tx = known.tx
    spent_sat = sum(coin.sat for coin in known.spent.values())
    received_sat = sum(output.sat for output in tx.outputs if wallet.owns(output.script))
    fee_sat = spent_sat - sum(output.sat for output in tx.outputs)
    all_ours = len(known.spent) == len(tx.inputs)
    net_sat = received_sat - spent_sat + (fee_sat if all_ours else 0)
    shown: dict[str, Any] = {
        "amount": amount(net_sat),
        "confirmations": _confirmations(session, tx.txid),
        "txid": show(tx.txid),
        "time": known.time_s,
        "timereceived": known.time_s,
        "bip125-replaceable": "no" if tx.txid in session.chain.ledger.index else "yes",
        "details": _details(wallet, known, fee_sat if all_ours else None),
    }
    if all_ours:
        shown["fee"] = amount(-fee_sat)
    if tx.txid in session.chain.ledger.index:
        height, position = session.chain.ledger.index[tx.txid]
        block = session.chain.ledger.at(height)
        shown |= {
            "blockhash": show(block.hash),
            "blockheight": height,
            "blockindex": position,
            "blocktime": block.time_s,
        }
    return shown


def _details(wallet: Wallet, known: WalletTransaction, fee_sat: int | None) -> list[dict[str, Any]]:
    details: list[dict[str, Any]] = []
    for vout, output in enumerate(known.tx.outputs):
        place = wallet.keys.places.get(output.script)
        entry: dict[str, Any] = {"address": address_of(output.script), "vout": vout}
        if known.spent and not (place and place.branch == 1):
            sent = {**entry, "category": "send", "amount": amount(-output.sat)}
            details.append({**sent, "fee": amount(-fee_sat)} if fee_sat is not None else sent)
        if place and not (known.spent and place.branch == 1):
            details.append({**entry, "category": "receive", "amount": amount(output.sat)})
    return details


def _confirmations(session: Session, txid: bytes) -> int:
    """As Core: negative never, 0 in the mempool or nowhere."""
    if txid not in session.chain.ledger.index:
        return 0
    return session.chain.height - session.chain.ledger.index[txid][0] + 1
