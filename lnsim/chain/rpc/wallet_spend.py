"""RPC: building, funding and signing transactions."""

from decimal import Decimal
from typing import Any

import wallycore as wally

from lnsim.chain.funding import SEQUENCE_REPLACEABLE, Funded, FundingOptions, fund
from lnsim.chain.model import COIN, Coin, Outpoint
from lnsim.chain.rpc.errors import FUNDS, PARAMETER, TYPE, WALLET, RpcError
from lnsim.chain.rpc.protocol import method
from lnsim.chain.rpc.session import Session
from lnsim.chain.rpc.values import (
    address_script,
    amount,
    outpoint_of,
    raw_of,
    sat_of,
    script_bytes,
    show,
    transaction_of,
)
from lnsim.chain.standard import MAX_STANDARD_WEIGHT, dust_limit_sat
from lnsim.chain.wallet import Wallet
from node.bitcoin.block import parse_transaction, serialize_transaction
from node.bitcoin.transaction import Input, Output
from node.errors import MalformedMessage, Refused

VERSION = 2
MIN_INPUT_WEIGHT = 165  # with an empty script and an empty witness
SIGHASHES = {
    "DEFAULT": wally.WALLY_SIGHASH_ALL,
    "ALL": wally.WALLY_SIGHASH_ALL,
    "NONE": wally.WALLY_SIGHASH_NONE,
    "SINGLE": wally.WALLY_SIGHASH_SINGLE,
    "ALL|ANYONECANPAY": wally.WALLY_SIGHASH_ALL | wally.WALLY_SIGHASH_ANYONECANPAY,
    "NONE|ANYONECANPAY": wally.WALLY_SIGHASH_NONE | wally.WALLY_SIGHASH_ANYONECANPAY,
    "SINGLE|ANYONECANPAY": wally.WALLY_SIGHASH_SINGLE | wally.WALLY_SIGHASH_ANYONECANPAY,
}
FUNDING_KEYS = {
    "add_inputs", "include_unsafe", "minconf", "maxconf", "changeAddress", "change_address", "changePosition",
    "change_position", "change_type", "includeWatching", "include_watching", "lockUnspents", "lock_unspents",
    "fee_rate", "feeRate", "subtractFeeFromOutputs", "subtract_fee_from_outputs", "replaceable",
    "conf_target", "estimate_mode", "solving_data", "input_weights", "max_tx_weight",
}  # fmt: skip


@method
def createrawtransaction(
    session: Session,
    inputs: list[Any],
    outputs: list[Any] | dict[str, Any],
    locktime: int = 0,
    replaceable: bool = True,
) -> Any:
    sources = inputs_of(inputs, locktime, replaceable=replaceable)
    return serialize_transaction(VERSION, sources, outputs_of(outputs), _locktime(locktime)).hex()


@method
def fundrawtransaction(
    session: Session,
    hexstring: str,
    options: dict[str, Any] = {},  # noqa: B006 - read only, and the parameter's type is its annotation
    iswitness: bool | None = None,
) -> Any:
    wallet = session.wallet
    version, inputs, outputs, locktime = _bare(hexstring, is_witness=iswitness)
    funded = _fund(wallet, version, inputs, outputs, locktime, options_of(session, options, outputs))
    return {"hex": funded.raw.hex(), "fee": amount(funded.fee_sat), "changepos": _position(funded)}


@method
def signrawtransactionwithwallet(
    session: Session, hexstring: str, prevtxs: list[Any] | None = None, sighashtype: str = "DEFAULT"
) -> Any:
    if sighashtype not in SIGHASHES:
        raise RpcError(PARAMETER, f"'{sighashtype}' is not a valid sighash parameter.")
    wallet, tx = session.wallet, transaction_of(hexstring)
    known = {outpoint_of(p): _previous(p) for p in prevtxs or []}
    raw = wallet.sign(tx.raw, known, SIGHASHES[sighashtype])
    errors = _sign_errors(session, raw, known)
    shown: dict[str, Any] = {"hex": raw.hex(), "complete": not errors}
    return shown | {"errors": errors} if errors else shown


@method
def sendtoaddress(
    session: Session,
    address: str,
    amount: Decimal | str,
    comment: str = "",
    comment_to: str = "",
    subtractfeefromamount: bool = False,
    replaceable: bool = True,
    conf_target: int = 6,
    estimate_mode: str = "unset",
    avoid_reuse: bool = True,
    fee_rate: Decimal | str | None = None,
    verbose: bool = False,
) -> Any:
    output = Output(sat_of(amount), address_script(address))
    if output.sat < dust_limit_sat(output.script):
        raise RpcError(FUNDS, "Transaction amount too small")
    feerate = session.chain.fee_estimate(conf_target) if fee_rate is None else sat_per_kvb(fee_rate)
    return _send(session, [output], feerate, subtract_from=(0,) if subtractfeefromamount else ())


@method
def sendmany(
    session: Session,
    dummy: str,
    amounts: dict[str, Any],
    minconf: int = 0,
    comment: str = "",
    subtractfeefrom: list[Any] | None = None,
    replaceable: bool = True,
    conf_target: int = 6,
    estimate_mode: str = "unset",
    fee_rate: Decimal | str | None = None,
) -> Any:
    if subtractfeefrom:
        raise RpcError(PARAMETER, "subtractfeefrom is not offered by the embedded chain")
    feerate = session.chain.fee_estimate(conf_target) if fee_rate is None else sat_per_kvb(fee_rate)
    return _send(session, list(outputs_of(amounts)), feerate)


def inputs_of(values: list[Any], locktime: int, *, replaceable: bool) -> list[Input]:
    inputs = []
    for value in values:
        default = SEQUENCE_REPLACEABLE if replaceable else 0xFFFFFFFE if locktime else 0xFFFFFFFF
        outpoint = outpoint_of(value)
        sequence = value.get("sequence", default)
        if not isinstance(sequence, int) or not 0 <= sequence <= 0xFFFFFFFF:
            raise RpcError(PARAMETER, "Invalid parameter, sequence number is out of range")
        inputs.append(Input(*outpoint, sequence))
    return inputs


def outputs_of(values: Any) -> tuple[Output, ...]:
    """Outputs of `{address: amount}` or a list of such objects; `data` makes an OP_RETURN."""
    pairs = list(values.items()) if isinstance(values, dict) else []
    for value in values if isinstance(values, list) else []:
        if not isinstance(value, dict) or len(value) != 1:
            raise RpcError(PARAMETER, "Invalid parameter, key-value pair must contain exactly one key")
        pairs += value.items()
    outputs, seen = [], set()
    for key, value in pairs:
        if key == "data":
            outputs.append(Output(0, _data_script(value)))
            continue
        script = address_script(key)
        if script in seen:
            raise RpcError(PARAMETER, f"Invalid parameter, duplicated address: {key}")
        seen.add(script)
        outputs.append(Output(sat_of(value), script))
    return tuple(outputs)


def options_of(session: Session, options: dict[str, Any], outputs: tuple[Output, ...]) -> FundingOptions:
    unknown = options.keys() - FUNDING_KEYS
    if unknown:
        raise RpcError(TYPE, f"Unexpected key {min(unknown)}")

    def option(kind: type, *names: str, default: Any = None) -> Any:
        found = next((options[name] for name in names if options.get(name) is not None), default)
        if found is not default and (
            not isinstance(found, kind) or isinstance(found, bool) != (kind is bool)
        ):
            raise RpcError(TYPE, f"JSON value of {names[0]} is not of the expected type")
        return found

    position = option(int, "changePosition", "change_position", default=-1)
    if not -1 <= position <= len(outputs):
        raise RpcError(PARAMETER, "changePosition out of bounds")
    change = option(str, "changeAddress", "change_address")
    subtract = tuple(option(list, "subtractFeeFromOutputs", "subtract_fee_from_outputs", default=[]))
    if any(not isinstance(n, int) or not 0 <= n < len(outputs) for n in subtract):
        raise RpcError(PARAMETER, "Invalid parameter, position too large")
    return FundingOptions(
        feerate_sat_per_kvb=_feerate(session, options, option(int, "conf_target", default=6)),
        change_script=address_script(change) if change else None,
        change_position=None if position == -1 else position,
        lock=option(bool, "lockUnspents", "lock_unspents", default=False),
        add_inputs=option(bool, "add_inputs", default=True),
        min_depth=option(int, "minconf", default=0),
        subtract_from=subtract,
        sequence=SEQUENCE_REPLACEABLE if option(bool, "replaceable", default=True) else 0xFFFFFFFE,
        input_weights={outpoint_of(e): _weight(e) for e in option(list, "input_weights", default=[])},
    )


def _weight(value: Any) -> int:
    weight = value.get("weight")
    if not isinstance(weight, int) or not MIN_INPUT_WEIGHT <= weight <= MAX_STANDARD_WEIGHT:
        raise RpcError(PARAMETER, "Invalid parameter, weight is missing, too small or too large")
    return weight


def _feerate(session: Session, options: dict[str, Any], target: int) -> int:
    """Sat per kvB of `feeRate` (BTC/kvB), `fee_rate` (sat/vB) or the estimate."""
    if options.get("feeRate") is not None and options.get("fee_rate") is not None:
        raise RpcError(PARAMETER, "Cannot specify both fee_rate (sat/vB) and feeRate (BTC/kvB)")
    if options.get("feeRate") is not None:
        return sat_of(options["feeRate"])
    if options.get("fee_rate") is not None:
        return sat_per_kvb(options["fee_rate"])
    return session.chain.fee_estimate(target)


def sat_per_kvb(sat_per_vb: Any) -> int:
    """A feerate given in sat/vB, with at most three places."""
    try:
        return sat_of(Decimal(str(sat_per_vb)) * 1000 / COIN)
    except ArithmeticError:
        raise RpcError(TYPE, "Invalid amount") from None


def _bare(
    hexstring: str, *, is_witness: bool | None
) -> tuple[int, tuple[Input, ...], tuple[Output, ...], int]:
    """A transaction that may still lack inputs, whose bytes then can also look like the witness form."""
    raw = raw_of(hexstring)
    if raw[4:5] == b"\x00" and not is_witness:
        try:
            tx = parse_transaction(raw[:4] + b"\x01" + bytes(36) + b"\x00" + bytes(4) + raw[5:])
        except MalformedMessage:
            pass
        else:
            return tx.version, (), tx.outputs, tx.locktime
    tx = transaction_of(hexstring)
    return tx.version, tx.inputs, tx.outputs, tx.locktime


def _fund(
    wallet: Wallet,
    version: int,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...],
    locktime: int,
    options: FundingOptions,
) -> Funded:
    try:
        return fund(wallet, version, inputs, outputs, locktime, options)
    except Refused as why:
        raise RpcError(WALLET, str(why)) from None


def _send(session: Session, outputs: list[Output], feerate: int, subtract_from: tuple[int, ...] = ()) -> str:
    if not outputs:
        raise RpcError(PARAMETER, "Transaction must have at least one recipient")
    options = FundingOptions(feerate_sat_per_kvb=feerate, subtract_from=subtract_from)
    try:
        funded = fund(session.wallet, VERSION, (), outputs, 0, options)
    except Refused as why:
        raise RpcError(FUNDS, str(why)) from None
    return show(session.chain.submit(session.wallet.sign(funded.raw, {})))


def _sign_errors(session: Session, raw: bytes, known: dict[Outpoint, Coin]) -> list[dict[str, Any]]:
    """The inputs that the engine would not take as they are."""
    tx, chain = parse_transaction(raw), session.chain
    coins = [known.get(i.outpoint) or chain.gate.coin(i.outpoint) for i in tx.inputs]
    found = [coin for coin in coins if coin]
    checkable = len(found) == len(coins)
    refused = chain.ledger.engine.refused_inputs(raw, found) if checkable else range(len(coins))
    errors = []
    for index, (i, coin) in enumerate(zip(tx.inputs, coins, strict=True)):
        if index not in refused:
            continue
        if coin is None:
            reason = "Input not found or already spent"
        elif not i.witness and not i.script_sig:
            reason = "Unable to sign input, invalid stack size (possibly missing key)"
        elif not checkable:
            reason = "Another input was not found, so this one cannot be checked"
        else:
            reason = "Witness program hash mismatch, or a signature that does not hold"
        place = {"txid": show(i.txid), "vout": i.vout, "scriptSig": i.script_sig.hex()}
        witness = [item.hex() for item in i.witness]
        errors.append({**place, "witness": witness, "sequence": i.sequence, "error": reason})
    return errors


def _previous(value: dict[str, Any]) -> Coin:
    if "scriptPubKey" not in value or "amount" not in value:
        raise RpcError(TYPE, "Missing amount or scriptPubKey")
    return Coin(sat_of(value["amount"]), script_bytes(value["scriptPubKey"], "scriptPubKey"), None)


def _data_script(value: Any) -> bytes:
    try:
        return bytes(wally.scriptpubkey_op_return_from_bytes(script_bytes(value, "Data"), 0))
    except ValueError:
        raise RpcError(PARAMETER, "Data is longer than an OP_RETURN takes") from None


def _locktime(locktime: int) -> int:
    if not 0 <= locktime <= 0xFFFFFFFF:
        raise RpcError(PARAMETER, "Invalid parameter, locktime out of range")
    return locktime


def _position(funded: Funded) -> int:
    return -1 if funded.change_position is None else funded.change_position
