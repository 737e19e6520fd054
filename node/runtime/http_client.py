"""HTTP requests to one server, over kept-alive connections."""

from types import TracebackType
from typing import Self

import aiohttp

# bitcoind closes an idle connection after 30 s; reusing one at that moment would lose a request.
KEEP_ALIVE_S = 15.0
MAX_CONNECTIONS = 8  # bitcoind serves 16 at a time and refuses beyond a queue of 64


class HttpClient:
    """POST to one base address; raises OSError where nobody answers and TimeoutError."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> tuple[int, bytes]:
        if self._session is None:  # needs the running loop, hence not in the constructor
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S)
            self._session = aiohttp.ClientSession(connector=connector)
        limit = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(
                self._base_url + path, data=body, headers=headers, timeout=limit
            ) as response:
                return response.status, await response.read()
        except aiohttp.ClientConnectorError as error:
            raise ConnectionRefusedError(f"nothing answers at {self._base_url}") from error
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
