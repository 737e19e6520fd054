"""What a shell may ask of the outside world: time, chance, tasks, connections.

Frontend, backend and simulated peers take a `Runtime` and nothing else, so that the same shells run on real sockets
and clocks (`SystemRuntime`) and in a simulation on virtual time. Everything of asyncio that goes through the running
loop (events, futures, sleeping) may be used directly; sockets, clocks, threads and randomness may not.
"""

import asyncio
import errno
import random
import secrets
import ssl
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from node.errors import Refused
from node.runtime import socks
from node.runtime.addresses import join_address, split_address
from node.runtime.tls import Gate, Tls, explain
from node.runtime.tls_listener import HANDSHAKE_TIMEOUT_S, TlsListener, bind

T = TypeVar("T")
ProtocolFactory = Callable[[], asyncio.Protocol]

LISTEN_BACKLOG = 1_024  # a reconnect storm fills a short queue at once


class Listener(Protocol):
    """A bound address; `address` is where it can be reached (the port that was chosen for port 0)."""

    @property
    def address(self) -> str: ...

    def close(self) -> None: ...


class Runtime(Protocol):
    """The world as a shell sees it. Addresses are "HOST:PORT", "[V6]:PORT" or "unix:PATH"."""

    random: random.Random

    def now(self) -> float:
        """Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never goes back."""
        ...

    def entropy(self, size: int) -> bytes:
        """Unpredictable bytes for keys."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run in the background; an exception in it ends the whole process, loudly."""
        ...

    async def run_blocking(self, lane: str, work: Callable[[], T]) -> T:
        """Run what blocks (a disk, C code) without holding up the loop; each lane runs its work one by one."""
        ...

    async def listen(
        self, address: str, factory: ProtocolFactory, *, share_port: bool = False, tls: Tls | None = None
    ) -> Listener:
        """With `tls`, a TCP port is for members alone; a Unix socket needs none."""
        ...

    async def connect(
        self,
        address: str,
        factory: ProtocolFactory,
        *,
        tls: Tls | None = None,
        proxy: socks.Proxy | None = None,
    ) -> asyncio.Protocol:
        """Raises OSError or TimeoutError where nobody answers, Refused for what is no address.

        With `proxy`, nothing but it is spoken to: it resolves names, too. Not together with `tls`.
        """
        ...


class SystemRuntime:
    """The real world, on the running asyncio loop."""

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self.random = random.Random(secrets.randbits(128))  # noqa: S311 - jitter and choices, never keys
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] = set()
        self._lanes: dict[str, ThreadPoolExecutor] = {}

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def entropy(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def run_blocking(self, lane: str, work: Callable[[], T]) -> T:
        if lane not in self._lanes:  # a flood in one lane never delays another
            self._lanes[lane] = ThreadPoolExecutor(max_workers=1, thread_name_prefix=lane)
        return await asyncio.get_running_loop().run_in_executor(self._lanes[lane], work)

    async def listen(
        self, address: str, factory: ProtocolFactory, *, share_port: bool = False, tls: Tls | None = None
    ) -> Listener:
        loop = asyncio.get_running_loop()
        kind, host, port = split_address(address)
        if kind == "unix":
            return await _listen_unix(host, factory)
        if tls is not None:
            place = bind(address, host, port)
            members = TlsListener(place, join_address(*place.getsockname()[:2]), tls, factory)
            members.start(self.spawn)
            return members
        try:
            server = await loop.create_server(
                factory, host, port, backlog=LISTEN_BACKLOG, reuse_port=share_port or None, reuse_address=True
            )
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise Refused(
                f"can't listen at {address}: {why}; end what has it (ss -ltnp), or choose another address"
            ) from error
        bound = server.sockets[0].getsockname()
        return _SocketListener(server, join_address(bound[0], bound[1]))

    async def connect(
        self,
        address: str,
        factory: ProtocolFactory,
        *,
        tls: Tls | None = None,
        proxy: socks.Proxy | None = None,
    ) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        kind, host, port = split_address(address)
        if kind == "unix":
            _, protocol = await loop.create_unix_connection(factory, host)
            return protocol
        if proxy is not None:
            return await _connect_through(proxy, host, port, factory)
        if tls is not None:
            return await _connect_tls(host, port, factory, tls)
        try:
            _, protocol = await loop.create_connection(factory, host, port)
        except ValueError as error:  # an empty label, one too long, a zero byte: strangers announce any name
            raise Refused(f"no host name: {error}") from error
        return protocol


async def _connect_through(
    proxy: socks.Proxy, host: str, port: int, factory: ProtocolFactory
) -> asyncio.Protocol:
    connected = await socks.connect(proxy, host, port)
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(factory, sock=connected)
    except BaseException:
        connected.close()
        raise
    return protocol


async def _connect_tls(host: str, port: int, factory: ProtocolFactory, tls: Tls) -> asyncio.Protocol:
    gate = Gate(tls, factory)
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: gate,
            host,
            port,
            ssl=tls.client_context,
            server_hostname="",
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
        )
    except ssl.SSLError as error:
        raise ConnectionRefusedError(f"TLS: {explain(error)}") from error
    except ValueError as error:
        raise Refused(f"no host name: {error}") from error
    if gate.inner is None:
        raise ConnectionRefusedError(f"TLS: {gate.refused}")
    return gate.inner


async def _listen_unix(path: str, factory: ProtocolFactory) -> Listener:
    _remove(path)
    server = await asyncio.get_running_loop().create_unix_server(factory, path, backlog=LISTEN_BACKLOG)
    _only_for_owner(path)
    return _SocketListener(server, f"unix:{path}")


def _remove(path: str) -> None:
    """A socket file may be left by a process that was killed."""
    Path(path).unlink(missing_ok=True)


def _only_for_owner(path: str) -> None:
    Path(path).chmod(0o600)


class _SocketListener:
    def __init__(self, server: asyncio.Server, address: str) -> None:
        self._server = server
        self.address = address

    def close(self) -> None:
        self._server.close()
