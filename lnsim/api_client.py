"""Small asynchronous clients: the HTTP API of a node of ours, and the RPC of the chain."""

import asyncio
import base64
from collections.abc import Mapping
from itertools import count
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

MAX_RESPONSE_BYTES = 64 << 20  # a full graph is the largest thing anyone answers
CALL_TIMEOUT_S = 120.0  # above any timeout that a call takes as its argument


class CallFailed(Exception):  # noqa: N818 - the answer, not a fault of ours
    """The other side answered with an error, or not at all."""


class Unreachable(CallFailed):
    """Nobody answered: whether the call was carried out is not known."""


class Node(Protocol):
    """A node that can be commanded, wherever it runs."""

    async def call(self, name: str, **arguments: Any) -> Any: ...


class NodeApi:
    """The API of a backend or a standalone node, at "unix:PATH" or "HOST:PORT"."""

    def __init__(self, address: str, password: str = "") -> None:
        self._address = address
        self._headers = _authorization("", password) if password else {}

    async def call(self, name: str, **arguments: Any) -> Any:
        """Raises CallFailed with the node's own words."""
        status, body = await post(self._address, f"/{name}", msgspec.json.encode(arguments), self._headers)
        answer = _decoded(body, status)
        if status >= 400:
            raise CallFailed(_words(answer, status))
        return answer


class ChainRpc:
    """bitcoind's JSON-RPC, which the embedded chain speaks too."""

    def __init__(self, url: str, user: str, password: str, wallet: str | None = None) -> None:
        self._address = urlsplit(url).netloc
        self._path = "/" if wallet is None else f"/wallet/{wallet}"
        self._headers = _authorization(user, password)
        self._ids = count(1)

    async def call(self, method: str, *params: Any) -> Any:
        """Raises CallFailed with the chain's own words."""
        request = {"jsonrpc": "1.0", "id": next(self._ids), "method": method, "params": params}
        body = msgspec.json.encode(request)
        status, answer_body = await post(self._address, self._path, body, self._headers)
        answer = _decoded(answer_body, status)
        if not isinstance(answer, dict) or answer.get("error") is not None or "result" not in answer:
            raise CallFailed(f"{method}: {_words(answer, status)}")
        return answer["result"]


async def post(
    address: str, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float = CALL_TIMEOUT_S
) -> tuple[int, bytes]:
    """One HTTP/1.1 request on a connection of its own: (status, body)."""
    called = address.rpartition("/")[2] + path
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(address, path, body, headers)
    except TimeoutError as error:
        raise Unreachable(f"{called}: no answer within {timeout_s:g} s") from error
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise Unreachable(f"{called}: {error or type(error).__name__}") from error


async def _post(address: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(
            address.removeprefix("unix:"), limit=MAX_RESPONSE_BYTES
        )
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=MAX_RESPONSE_BYTES)
    try:
        fields = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in fields.items())
        writer.write(head.encode() + b"\r\n" + body)
        return await _response(reader)
    finally:
        writer.close()


async def _response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split()[1])
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    if "content-length" in fields:
        length = int(fields["content-length"])
        if length > MAX_RESPONSE_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        return status, await reader.readexactly(length)
    if fields.get("transfer-encoding") == "chunked":
        return status, await _chunks(reader)
    return status, await reader.read(MAX_RESPONSE_BYTES)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int(await reader.readline(), 16):
        if len(body) + size > MAX_RESPONSE_BYTES:
            raise ValueError("an answer without end")
        body += await reader.readexactly(size)
        await reader.readline()
    return bytes(body)


def _authorization(user: str, password: str) -> dict[str, str]:
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def _decoded(body: bytes, status: int) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise CallFailed(f"status {status}: {body[:200]!r}") from error


def _words(answer: Any, status: int) -> str:
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        return str(error.get("message", error))
    return f"{error} (status {status})" if error is None else str(error)
