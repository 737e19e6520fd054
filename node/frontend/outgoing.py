"""Connections that a frontend makes: directly or through the SOCKS proxy, as the backend says for each kind."""

import asyncio
from collections.abc import Iterable

from node.crypto.hashes import sha256
from node.errors import Refused
from node.frontend.connection import PeerConnection
from node.link.messages import OWN_PROXY, PROXIES, Dialling
from node.runtime.addresses import is_loopback, kind_of
from node.runtime.config import FrontendConfig
from node.runtime.runtime import ProtocolFactory, Runtime
from node.runtime.socks import Proxy

SECRET_SIZE = 32
NAME_DIGITS = 32  # of a user name: too many to meet another peer's


class Outgoing:
    def __init__(self, runtime: Runtime, config: FrontendConfig) -> None:
        self._runtime = runtime
        self._config = config
        self._secret = b""
        self._dialling = Dialling()
        self.leaks = ""  # why no port may be opened

    @property
    def capabilities(self) -> tuple[str, ...]:
        """For the Hello."""
        own = (OWN_PROXY,) if self._config.socks else ()
        return (*self._config.reaches, PROXIES, *own)

    def configure(self, dialling: Dialling, open_: Iterable[PeerConnection]) -> list[PeerConnection]:
        """Those of the open connections that were dialled directly and would not be any more."""
        before, self._dialling = self._dialling, dialling
        self.leaks = leak(self._config) if dialling.only else ""
        if self.leaks:
            self._runtime.spawn(_refuse(self.leaks), "tor_only")
        dialled = [each for each in open_ if each.dial is not None]
        return [each for each in dialled if _was_direct(each.address, before, dialling)]

    async def connect(self, address: str, node_id: bytes, factory: ProtocolFactory, timeout_s: float) -> None:
        """Raises OSError, TimeoutError or Refused, each of which says why."""
        way = self._dialling.way(kind_of(address))
        if way not in ("direct", "proxy"):  # `never`, or what only a newer release knows
            raise Refused(f"{kind_of(address)} addresses are not dialled")
        proxy = self._proxy(node_id) if way == "proxy" else None
        try:
            async with asyncio.timeout(timeout_s):
                await self._runtime.connect(address, factory, proxy=proxy)
        except TimeoutError:
            via = f" through the proxy at {proxy.address}" if proxy else ""
            raise TimeoutError(f"no answer{via} within {timeout_s:g} s") from None

    def _proxy(self, node_id: bytes) -> Proxy:
        address = self._config.socks or self._dialling.socks
        if not address:
            raise Refused("no SOCKS proxy is set (tor.socks)")
        if not self._dialling.isolate:
            return Proxy(address)
        self._secret = self._secret or self._runtime.entropy(SECRET_SIZE)
        # without the secret, the proxy could tell whom we know; it lasts so that a peer keeps its circuit
        name = sha256(self._secret + node_id).hex()
        return Proxy(address, name[:NAME_DIGITS], name[NAME_DIGITS:])


def _was_direct(address: str, before: Dialling, after: Dialling) -> bool:
    kind = kind_of(address)
    return before.way(kind) == "direct" != after.way(kind)


def leak(config: FrontendConfig) -> str:
    """What of this configuration a node that speaks through Tor alone must not have; or nothing."""
    for field in ("listen", "proxy_listen"):
        address = getattr(config, field)
        if address and not is_loopback(address):
            return f"{field}: {address}: the backend has tor.only, so listen for the Tor daemon alone; use 127.0.0.1"
    if config.handshakes == "frontend" and config.node_key.provider == "aws-sm":
        return "node_key.provider: aws-sm: leaves this host, and the backend has tor.only; use file"
    return ""


async def _refuse(why: str) -> None:
    """As a task, so that the process ends with it, before it has opened its port: every backend would say so."""
    raise Refused(why)
