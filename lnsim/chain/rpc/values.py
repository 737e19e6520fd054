"""Between JSON and our values: hashes are shown in reverse, amounts are BTC with eight places."""

from decimal import Decimal, InvalidOperation
from typing import Any

from lnsim.chain.keys import script_of
from lnsim.chain.model import COIN, MAX_MONEY_SAT, StoredBlock
from lnsim.chain.rpc.errors import DESERIALIZATION, NO_KEY, PARAMETER, TYPE, RpcError
from lnsim.chain.rpc.session import Session
from node.bitcoin.block import ChainTransaction, parse_transaction
from node.errors import MalformedMessage

MAX_VOUT = 0xFFFFFFFF


def show(digest: bytes) -> str:
    return digest[::-1].hex()


def amount(sat: int) -> Decimal:
    return Decimal(sat).scaleb(-8).quantize(Decimal("1e-8"))


def sat_of(value: Any) -> int:
    """Satoshi of an amount in BTC, given as number or string."""
    try:
        exact = Decimal(str(value)) * COIN if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        raise RpcError(TYPE, "Invalid amount") from None
    if not exact.is_finite() or exact != exact.to_integral_value():
        raise RpcError(TYPE, "Invalid amount")
    if not 0 <= exact <= MAX_MONEY_SAT:
        raise RpcError(TYPE, "Amount out of range")
    return int(exact)


def hash_of(text: Any, name: str) -> bytes:
    if not isinstance(text, str) or len(text) != 64:
        size = len(text) if isinstance(text, str) else 0
        raise RpcError(PARAMETER, f"{name} must be of length 64 (not {size}, for '{text}')")
    try:
        return bytes.fromhex(text)[::-1]
    except ValueError:
        raise RpcError(PARAMETER, f"{name} must be hexadecimal string (not '{text}')") from None


def transaction_of(text: Any) -> ChainTransaction:
    try:
        return parse_transaction(bytes.fromhex(text))
    except (MalformedMessage, ValueError, TypeError):
        text = "TX decode failed. Make sure the tx has at least one input."
        raise RpcError(DESERIALIZATION, text) from None


def script_bytes(text: Any, name: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        raise RpcError(PARAMETER, f"{name} must be hexadecimal string (not '{text}')") from None


def raw_of(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        text = "TX decode failed. Make sure the tx has at least one input."
        raise RpcError(DESERIALIZATION, text) from None


def address_script(address: Any) -> bytes:
    script = script_of(address) if isinstance(address, str) else None
    if script is None:
        raise RpcError(NO_KEY, f"Invalid Bitcoin address: {address}")
    return script


def block_of(session: Session, block_hash: Any, name: str = "blockhash") -> StoredBlock:
    block = session.chain.block(hash_of(block_hash, name))
    if block is None:
        raise RpcError(NO_KEY, "Block not found")
    return block


def outpoint_of(value: Any) -> tuple[bytes, int]:
    if not isinstance(value, dict):
        raise RpcError(TYPE, "JSON value is not of expected type object")
    vout = value.get("vout")
    if not isinstance(vout, int) or isinstance(vout, bool):
        raise RpcError(PARAMETER, "Invalid parameter, missing vout key")
    if not 0 <= vout <= MAX_VOUT:
        raise RpcError(PARAMETER, "Invalid parameter, vout cannot be negative")
    return hash_of(value.get("txid"), "txid"), vout
