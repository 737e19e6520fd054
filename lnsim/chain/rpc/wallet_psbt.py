"""RPC: partially signed transactions, through libwally."""

from typing import Any

import wallycore as wally

from lnsim.chain.funding import fund
from lnsim.chain.model import Coin, Outpoint
from lnsim.chain.rpc.errors import DESERIALIZATION, PARAMETER, WALLET, RpcError
from lnsim.chain.rpc.protocol import method
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import amount
from lnsim.chain.rpc.wallet_spend import SIGHASHES, inputs_of, options_of, outputs_of
from lnsim.chain.wallet import Wallet
from node.bitcoin.block import ChainTransaction, parse_transaction
from node.errors import Refused

VERSION = 2


@method
def walletcreatefundedpsbt(
    session: Session,
    inputs: list[Any],
    outputs: list[Any] | dict[str, Any],
    locktime: int = 0,
    options: dict[str, Any] = {},  # noqa: B006 - read only, and the parameter's type is its annotation
    bip32derivs: bool = True,
) -> Any:
    wallet, paid = session.wallet, outputs_of(outputs)
    sources = inputs_of(inputs, locktime, replaceable=True)
    try:
        funded = fund(wallet, VERSION, sources, paid, locktime, options_of(session, options, paid))
    except Refused as why:
        raise RpcError(WALLET, str(why)) from None
    parsed = wally.tx_from_bytes(funded.raw, wally.WALLY_TX_FLAG_USE_WITNESS)
    psbt = wally.psbt_from_tx(parsed, wally.WALLY_PSBT_VERSION_0, 0)
    _update(session, psbt, parse_transaction(funded.raw))
    position = -1 if funded.change_position is None else funded.change_position
    return {"psbt": _text(psbt), "fee": amount(funded.fee_sat), "changepos": position}


@method
def walletprocesspsbt(
    session: Session,
    psbt: str,
    sign: bool = True,
    sighashtype: str = "DEFAULT",
    bip32derivs: bool = True,
    finalize: bool = True,
) -> Any:
    if sighashtype not in SIGHASHES:
        raise RpcError(PARAMETER, f"'{sighashtype}' is not a valid sighash parameter.")
    parsed = _parsed(psbt)
    tx = _transaction(parsed)
    _update(session, parsed, tx)
    if sign:
        _sign(session.wallet, parsed, tx, SIGHASHES[sighashtype])
    if finalize:
        wally.psbt_finalize(parsed, 0)
    return _state(parsed, extract=True)


@method
def finalizepsbt(session: Session, psbt: str, extract: bool = True) -> Any:
    parsed = _parsed(psbt)
    wally.psbt_finalize(parsed, 0)
    return _state(parsed, extract=extract)


@method
def combinepsbt(session: Session, txs: list[Any]) -> Any:
    if not txs:
        raise RpcError(PARAMETER, "Parameter 'txs' cannot be empty")
    first, *others = [_parsed(text) for text in txs]
    for other in others:
        try:
            wally.psbt_combine(first, other)
        except ValueError:
            raise RpcError(PARAMETER, "PSBTs not compatible (different transactions)") from None
    return _text(first)


def _update(session: Session, psbt: object, tx: ChainTransaction) -> None:
    """Add the outputs spent, where the chain knows them."""
    for index, i in enumerate(tx.inputs):
        coin = session.chain.gate.coin(i.outpoint)
        if coin is not None and _witness_coin(psbt, index) is None:
            wally.psbt_set_input_witness_utxo(psbt, index, wally.tx_output_init(coin.sat, coin.script))


def _sign(wallet: Wallet, psbt: object, tx: ChainTransaction, sighash: int) -> None:
    known: dict[Outpoint, Coin] = {}
    for index, i in enumerate(tx.inputs):
        if coin := _witness_coin(psbt, index):
            known[i.outpoint] = coin
    signed = parse_transaction(wallet.sign(tx.raw, known, sighash))
    for index, i in enumerate(signed.inputs):
        owned = known.get(i.outpoint)
        if owned and wallet.owns(owned.script) and not wally.psbt_is_input_finalized(psbt, index):
            signature, public_key = i.witness
            wally.psbt_add_input_signature(psbt, index, public_key, signature)


def _witness_coin(psbt: object, index: int) -> Coin | None:
    output = wally.psbt_get_input_witness_utxo_alloc(psbt, index)
    if output is None:
        return None
    script = bytes(wally.tx_output_get_script(output))
    return Coin(wally.tx_output_get_satoshi(output), script, None)


def _transaction(psbt: object) -> ChainTransaction:
    raw = wally.tx_to_bytes(wally.psbt_get_global_tx_alloc(psbt), 0)
    return parse_transaction(bytes(raw))


def _state(psbt: object, *, extract: bool) -> dict[str, Any]:
    complete = bool(wally.psbt_is_finalized(psbt))
    shown: dict[str, Any] = {"complete": complete}
    if complete and extract:
        final = wally.psbt_extract(psbt, 0)
        shown["hex"] = bytes(wally.tx_to_bytes(final, wally.WALLY_TX_FLAG_USE_WITNESS)).hex()
    return {"psbt": _text(psbt), **shown}


def _parsed(text: Any) -> object:
    try:
        parsed: object = wally.psbt_from_base64(text, 0)
    except (TypeError, ValueError):
        raise RpcError(DESERIALIZATION, "TX decode failed invalid base64 or PSBT") from None
    return parsed


def _text(psbt: object) -> str:
    return str(wally.psbt_to_base64(psbt, 0))
