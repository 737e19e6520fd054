"""JSON-RPC to bitcoind: credentials, batches, deadlines, and patience while it starts."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from node.backend.chain_client import ChainUnavailable, CredentialsRefused, RpcError
from node.runtime import logs

WARMING_UP = -28
TIMEOUT_S = 30.0
MAX_BATCH = 100  # a bigger batch would hold up other calls for long
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 2.0
PATIENCE_S = 3.0  # then whoever waits is to hear that bitcoind is away
# Doing these twice would lock coins or pay twice.
ONCE = frozenset({"fundrawtransaction", "sendtoaddress"})

Call = tuple[str, list[Any]]
Credentials = Callable[[], tuple[str, str]]
Sleep = Callable[[float], Awaitable[None]]


class Transport(Protocol):
    async def post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        """Raises ConnectionRefusedError where nothing was sent, OSError and TimeoutError."""
        ...


class Reply(msgspec.Struct, frozen=True):
    id: int = -1
    result: Any = None
    error: dict[str, Any] | None = None


class _NotNow(Exception):  # noqa: N818 - says when, and never leaves this file
    """bitcoind did not take the request; it may be repeated."""


log = logs.get("bitcoind")

_encoder = msgspec.json.Encoder(decimal_format="number")
_single = msgspec.json.Decoder(Reply, float_hook=Decimal)
_batch = msgspec.json.Decoder(list[Reply], float_hook=Decimal)


class BitcoindRpc:
    """Calls methods by name. `wallet` goes into the path, so that several wallets can be loaded."""

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        *,
        wallet: str | None = None,
        sleep: Sleep = asyncio.sleep,
        patience_s: float = PATIENCE_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._sleep = sleep
        self._path = "/" if wallet is None else f"/wallet/{quote(wallet, safe='')}"
        self._patience_s = patience_s
        self._timeout_s = timeout_s
        self._authorization = ""
        self._away = False

    async def call(self, method: str, *params: Any) -> Any:
        """The result; raises RpcError, ChainUnavailable."""
        replies = await self.batch([(method, list(params))])
        return result_of(replies[0])

    async def batch(self, calls: Sequence[Call]) -> list[Reply]:
        """One reply for each call, in order; raises ChainUnavailable."""
        replies: list[Reply] = []
        for start in range(0, len(calls), MAX_BATCH):
            replies += await self._patiently(calls[start : start + MAX_BATCH])
        return replies

    async def _patiently(self, calls: Sequence[Call]) -> list[Reply]:
        """Repeat what bitcoind did not take, with growing pauses, until patience ends."""
        waited_s, pause_s = 0.0, RETRY_FIRST_S
        while True:
            try:
                replies = await self._once(calls)
            except _NotNow as why:
                self._is_away(str(why))
                if waited_s >= self._patience_s:
                    raise ChainUnavailable(f"{why}; start bitcoind, or correct bitcoind.url") from None
            else:
                self._is_there()
                return replies
            await self._sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    def _is_away(self, why: str) -> None:
        if not self._away:
            self._away = True
            log.warning("bitcoind_away", why=why, patience_s=self._patience_s)

    def _is_there(self) -> None:
        if self._away:
            self._away = False
            log.info("bitcoind_back")

    async def _once(self, calls: Sequence[Call]) -> list[Reply]:
        requests = [{"id": n, "method": name, "params": params} for n, (name, params) in enumerate(calls)]
        body = _encoder.encode(requests[0] if len(requests) == 1 else requests)
        status, answer = await self._post(body, {name for name, _ in calls})
        if status == 503:
            raise _NotNow("bitcoind's work queue is full")
        if status in (401, 403):
            raise CredentialsRefused(
                f"bitcoind refuses our credentials (HTTP {status}); "
                "correct bitcoind.user and bitcoind.password, or bitcoind.cookie_file"
            )
        try:
            replies = [_single.decode(answer)] if len(requests) == 1 else _batch.decode(answer)
        except msgspec.MsgspecError:
            raise ChainUnavailable(f"bitcoind answered HTTP {status} without JSON-RPC") from None
        if [reply.id for reply in replies] != list(range(len(requests))):
            replies = _sorted(replies, len(requests))
        for error in [reply.error for reply in replies if reply.error]:
            if error.get("code") == WARMING_UP:
                raise _NotNow(f"bitcoind is starting: {error.get('message', '')}")
        return replies

    async def _post(self, body: bytes, methods: set[str]) -> tuple[int, bytes]:
        try:
            status, answer = await self._transport.post(self._path, body, self._headers(), self._timeout_s)
            if status == 401:  # bitcoind writes a new cookie whenever it starts
                self._authorization = ""
                headers = self._headers()
                status, answer = await self._transport.post(self._path, body, headers, self._timeout_s)
        except TimeoutError:
            raise ChainUnavailable(f"bitcoind did not answer within {self._timeout_s} s") from None
        except ConnectionRefusedError as error:
            raise _NotNow(str(error)) from None
        except OSError as error:
            if methods & ONCE:
                raise ChainUnavailable(f"the connection to bitcoind broke: {error}") from None
            raise _NotNow(str(error)) from None
        return status, answer

    def _headers(self) -> dict[str, str]:
        if not self._authorization:
            user, password = self._credentials()
            self._authorization = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": self._authorization, "Content-Type": "application/json"}


def result_of(reply: Reply) -> Any:
    """The result; raises RpcError for an error."""
    if reply.error is not None:
        raise RpcError(int(reply.error.get("code", -1)), str(reply.error.get("message", "")))
    return reply.result


def cookie(path: Path) -> Credentials:
    """Credentials from bitcoind's cookie file, read anew whenever they are asked for."""

    def read() -> tuple[str, str]:
        user, _, password = path.read_text().partition(":")
        return user, password.strip()

    return read


def _sorted(replies: list[Reply], count: int) -> list[Reply]:
    by_id = {reply.id: reply for reply in replies}
    if len(by_id) != count or set(by_id) != set(range(count)):
        raise ChainUnavailable("bitcoind answered a batch with the wrong replies")
    return [by_id[n] for n in range(count)]
