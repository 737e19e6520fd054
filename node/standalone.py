"""A backend and one frontend in one process: a node for one machine, and what every simulated peer with channels is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from node.backend.backend import Backend
from node.backend.bitcoind import Bitcoind
from node.backend.bitcoind_rpc import BitcoindRpc, Credentials
from node.backend.chain_client import ChainClient, ChainUnavailable
from node.backend.chain_watcher import Hints
from node.backend.commands import Commands
from node.backend.sqlite_store import DATABASE, SqliteStore
from node.backend.store import Store
from node.errors import Misconfigured, Refused
from node.frontend.frontend import Frontend
from node.runtime.config import BackendConfig, BitcoindConfig, FrontendConfig, StandaloneConfig
from node.runtime.http_client import HttpClient
from node.runtime.release import release
from node.runtime.runtime import Runtime

START_TIMEOUT_S = 30.0


def chain_client(config: BitcoindConfig) -> tuple[ChainClient, HttpClient]:
    """Bitcoind as configured, and the connection to close in the end."""
    http = HttpClient(config.url)
    rpc = BitcoindRpc(http, _credentials(config), wallet=config.wallet or None)
    return Bitcoind(rpc), http


def _credentials(config: BitcoindConfig) -> Credentials:
    if config.user:
        return lambda: (config.user, config.password)
    cookie = Path(config.cookie_file).expanduser()

    def read() -> tuple[str, str]:
        try:
            user, _, password = cookie.read_text().strip().partition(":")
        except FileNotFoundError as error:  # bitcoind writes it when it starts, and removes it when it ends
            raise ChainUnavailable(
                f"bitcoind.cookie_file: {cookie} is not there; start bitcoind, or name its .cookie"
            ) from error
        except OSError as error:
            raise Misconfigured(
                f"bitcoind.cookie_file: {cookie}: {error.strerror}; let our user read it, or set user and password"
            ) from error
        return user, password

    return read


def open_store(config: BackendConfig) -> Store:
    """The SQLite database of this host. Raises Refused."""
    config.directory.mkdir(parents=True, exist_ok=True)
    return SqliteStore(config.directory / DATABASE)


async def lead(
    config: BackendConfig, runtime: Runtime, opened: Callable[[BackendConfig], Store], *, standby: bool
) -> Store:
    """The database that the configuration names, once it is ours; `opened`: one of this host's. Raises Refused."""
    if not config.database:
        if standby:
            raise Refused("--standby: two backends share a PostgreSQL database; set `database`")
        return opened(config)
    try:
        from node.backend import leadership
    except ImportError as error:
        raise Refused(f"database: {error}; install lnsim[postgres]") from error
    config.directory.mkdir(parents=True, exist_ok=True)
    return await leadership.lead(config, runtime, standby=standby)


class Standalone:
    """Both shells over one runtime; the link between them is a Unix socket like any other."""

    def __init__(
        self,
        config: StandaloneConfig,
        runtime: Runtime,
        client: ChainClient | None = None,
        hints: Hints | None = None,
        *,
        accept_older: bool = False,
    ) -> None:
        self._http: HttpClient | None = None
        if client is None:
            client, self._http = chain_client(config.backend.bitcoind)
        store = open_store(config.backend)
        try:
            self.backend = Backend(
                runtime, config.backend, client, store, release(), hints, accept_older=accept_older
            )
        except Refused:
            store.close()
            raise
        frontend = FrontendConfig(listen=config.listen, backend=config.backend.link_address, reconnect_s=0.1)
        # Two nodes on one port would each get some of the other's peers.
        self.frontend = Frontend(runtime, frontend, "standalone", release(), share_port=False)

    @property
    def commands(self) -> Commands:
        return self.backend.commands

    @property
    def node_id(self) -> bytes:
        return self.backend.node_id

    @property
    def listen_address(self) -> str:
        return self.frontend.address

    async def start(self) -> None:
        """Returns once peers can connect. Raises Refused."""
        await self.backend.start()
        await self.frontend.start()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self.frontend.listening.wait()
        except TimeoutError:
            raise Refused("the frontend did not open its port in time") from None

    async def stop(self) -> None:
        await self.frontend.stop()
        await self.backend.stop()
        if self._http is not None:
            await self._http.close()
