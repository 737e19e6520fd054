"""JSON-RPC as bitcoind speaks it: errors, the table of methods, single calls and batches."""

import inspect
from collections.abc import Callable
from decimal import Decimal
from types import UnionType
from typing import Any, get_args, get_origin

import msgspec

from lnsim.chain.model import Rejected
from lnsim.chain.rpc.errors import (
    DESERIALIZATION,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISC,
    PARAMETER,
    PARSE,
    TYPE,
    VERIFY_REJECTED,
    WALLET,
    RpcError,
)
from lnsim.chain.rpc.session import Session
from node.errors import MalformedMessage, Refused

MAX_BATCH = 10_000
JSON_TYPES = {
    bool: "bool",
    int: "number",
    Decimal: "number",
    str: "string",
    list: "array",
    dict: "object",
    type(None): "null",
}

Json = Any  # what a client sent; every method checks what it takes
Method = Callable[..., Json]

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")
METHODS: dict[str, Method] = {}


def method(function: Method) -> Method:
    """Offer a function under its own name; its first parameter is the session."""
    METHODS[function.__name__] = function
    return function


def answer(body: bytes, session: Session) -> tuple[int, bytes]:
    """Answer one HTTP body; the status and the body. Never raises for what a client can send."""
    try:
        request = _decoder.decode(body)
    except msgspec.DecodeError:
        return 500, _encoder.encode(_failure({}, RpcError(PARSE, "Parse error")))
    if isinstance(request, list):
        if len(request) > MAX_BATCH:
            return 400, _encoder.encode(_failure({}, RpcError(INVALID_REQUEST, "Batch too large")))
        return 200, _encoder.encode([_answer_one(entry, session)[1] for entry in request])
    status, response = _answer_one(request, session)
    return status, _encoder.encode(response)


def _answer_one(request: Json, session: Session) -> tuple[int, Json]:
    if not isinstance(request, dict):
        return 400, _failure({}, RpcError(INVALID_REQUEST, "Invalid Request object"))
    try:
        result = call(session, request.get("method"), request.get("params"))
    except RpcError as error:
        status = {METHOD_NOT_FOUND: 404, INVALID_REQUEST: 400}.get(error.code, 500)
        return 200 if request.get("jsonrpc") == "2.0" else status, _failure(request, error)
    if request.get("jsonrpc") == "2.0":
        return 200, {"jsonrpc": "2.0", "result": result, "id": request.get("id")}
    return 200, {"result": result, "error": None, "id": request.get("id")}


def call(session: Session, name: Json, params: Json) -> Json:
    """Run a method with positional or named parameters; raises RpcError alone."""
    if not isinstance(name, str):
        raise RpcError(INVALID_REQUEST, "Method must be a string")
    function = METHODS.get(name)
    if function is None:
        raise RpcError(METHOD_NOT_FOUND, "Method not found")
    try:
        return function(session, **_bind(name, function, params))
    except Rejected as why:
        raise RpcError(VERIFY_REJECTED, str(why)) from None
    except RpcError:
        raise
    except Refused as why:
        raise RpcError(WALLET, str(why)) from None
    except MalformedMessage:
        text = "TX decode failed. Make sure the tx has at least one input."
        raise RpcError(DESERIALIZATION, text) from None


def _bind(name: str, function: Method, params: Json) -> dict[str, Json]:
    known = list(inspect.signature(function).parameters.values())[1:]
    if params is None:
        params = []
    if isinstance(params, list):
        if len(params) > len(known):
            raise RpcError(MISC, f"{name} takes at most {len(known)} parameters")
        given = {p.name: value for p, value in zip(known, params, strict=False) if value is not None}
    elif isinstance(params, dict):
        unknown = params.keys() - {p.name for p in known} - {"args"}
        if unknown:
            raise RpcError(PARAMETER, f"Unknown named parameter {min(unknown)}")
        given = {p.name: v for p, v in zip(known, params.get("args", []), strict=False)}
        given |= {key: value for key, value in params.items() if key != "args" and value is not None}
    else:
        raise RpcError(INVALID_REQUEST, "Params must be an array or object")
    for p in known:
        if p.name in given:
            _check_type(p.name, given[p.name], p.annotation)
        elif p.default is inspect.Parameter.empty:
            raise RpcError(MISC, f"{name} needs the parameter {p.name}")
    return given


def _check_type(name: str, value: Json, wanted: Any) -> None:
    kinds = get_args(wanted) if isinstance(wanted, UnionType) else (wanted,)
    for kind in kinds:
        if kind is Any:
            return
        plain = get_origin(kind) or kind
        if isinstance(value, plain) and not (isinstance(value, bool) and plain is not bool):
            return
        if plain is Decimal and isinstance(value, int) and not isinstance(value, bool):
            return
    got = JSON_TYPES.get(type(value), "unknown")
    expected = JSON_TYPES.get(get_origin(kinds[0]) or kinds[0], "unknown")
    raise RpcError(TYPE, f"JSON value of type {got} is not of expected type {expected} ({name})")


def _failure(request: dict[str, Json], error: RpcError) -> Json:
    body = {"code": error.code, "message": error.message}
    if request.get("jsonrpc") == "2.0":
        return {"jsonrpc": "2.0", "error": body, "id": request.get("id")}
    return {"result": None, "error": body, "id": request.get("id")}
