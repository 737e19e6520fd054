"""`lnnode backup`: through the API of the backend that runs, or by ourselves where none does."""

import base64
from pathlib import Path

import aiohttp
import msgspec

from node.backend.sqlite_store import DATABASE, SqliteStore
from node.errors import Refused
from node.runtime.addresses import split_address
from node.runtime.config import BackendConfig

TIMEOUT_S = 3_600.0


async def take(config: BackendConfig, target: Path) -> str:
    """What was done, in a sentence. Raises Refused."""
    try:
        done = await _ask(config, target)
    except (aiohttp.ClientConnectorError, FileNotFoundError):
        _copy(config, target)
        return f"{target}: copied; no backend was running"
    return f"{target}: holds term {done['epoch']} up to transaction {done['commits']} or later"


async def _ask(config: BackendConfig, target: Path) -> dict[str, object]:
    kind, host, port = split_address(config.api_address)
    connector = aiohttp.UnixConnector(host) if kind == "unix" else aiohttp.TCPConnector()
    url = f"http://{'backend' if kind == 'unix' else f'{host}:{port}'}/backup"
    token = base64.b64encode(f":{config.api_password}".encode()).decode()
    headers = {"authorization": f"Basic {token}"} if config.api_password else {}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session,
        session.post(url, json={"target": str(target)}) as response,
    ):
        answer: dict[str, object] = msgspec.json.decode(await response.read())
        if response.status != 200:
            raise Refused(str(answer.get("error")))
        return answer


def _copy(config: BackendConfig, target: Path) -> None:
    path = config.directory / DATABASE
    if config.database or not path.exists():
        raise Refused(f"{path}: there is no such database, and no backend answers at {config.api_address}")
    store = SqliteStore(path)
    try:
        store.backup(target)
    finally:
        store.close()
