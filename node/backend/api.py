"""The HTTP API: POST /<call> with a JSON object of arguments, a JSON answer. What it offers is `Commands`."""

import base64
import hmac
import inspect
from collections.abc import Collection
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from node.backend.commands import CALLS, READS, TELLS, Commands
from node.errors import Refused
from node.runtime import logs

MAX_BODY = 1 << 20
MAX_NUMBER = (
    21_000_000 * 100_000_000 * 1_000
)  # msat, all that will ever be; whatever else is counted stays far below

log = logs.get("api")


class Api:
    """One application; every call is answered, whatever happens."""

    def __init__(
        self, commands: Commands, password: str, read_password: str = "", onion_password: str = ""
    ) -> None:
        """Without a password everybody may do everything; `read_password` opens `READS` alone, `onion_password` `TELLS`."""
        self._commands = commands
        self._password = password
        self._opens = ((password, CALLS), (read_password, READS), (onion_password, TELLS))
        self._signatures = {name: inspect.signature(getattr(commands, name)) for name in CALLS}

    @property
    def application(self) -> Starlette:
        return Starlette(routes=[Route("/{name}", self._answer, methods=["GET", "POST"])])

    async def _answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not (allowed := self._allowed(request)):
            return _json({"error": "unauthorized"}, 401)
        if name not in self._signatures:
            return _json({"error": f"no such call; there are: {', '.join(CALLS)}"}, 404)
        if name not in allowed:
            opens = "only reads" if allowed is READS else f"opens only {', '.join(allowed)}"
            return _json({"error": f"{name}: this password {opens}; ask with api_password"}, 403)
        try:
            arguments = await self._arguments(request, name)
            return _json(await getattr(self._commands, name)(**arguments), 200)
        except Refused as error:
            return _json({"error": str(error)}, 400)
        except Exception:
            log.exception("api_error", call=name)  # the traceback is for the operator alone
            return _json({"error": "internal error, see the log"}, 500)

    async def _arguments(self, request: Request, name: str) -> dict[str, Any]:
        body = await _body(request)
        try:
            arguments = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Refused(f"the body is no JSON object: {error}") from error
        try:
            self._signatures[name].bind(**arguments)
        except TypeError as error:
            wanted = ", ".join(self._signatures[name].parameters) or "no arguments"
            raise Refused(f"{name}: {error}; it takes: {wanted}") from error
        return _checked(self._signatures[name], arguments)

    def _allowed(self, request: Request) -> Collection[str]:
        """The calls that whoever asks may make."""
        if not self._password:
            return CALLS
        given = request.headers.get("authorization", "")
        try:
            _, _, secret = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        except ValueError:
            secret = ""
        for password, calls in self._opens:
            if password and hmac.compare_digest(secret.encode(), password.encode()):
                return calls
        return ()


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise Refused("the request is too large")
    except ClientDisconnect as error:
        raise Refused("the request broke off") from error
    return bytes(body)


def _checked(signature: inspect.Signature, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the types that the call declares. Raises Refused naming the one that is not."""
    checked = {}
    for name, value in arguments.items():
        try:
            checked[name] = msgspec.convert(value, signature.parameters[name].annotation, strict=True)
        except msgspec.ValidationError as error:
            raise Refused(f"{name}: {error}") from error
        if isinstance(value, int | float) and not 0 <= value <= MAX_NUMBER:
            raise Refused(f"{name}: 0 to {MAX_NUMBER}")
    return checked


def _json(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
