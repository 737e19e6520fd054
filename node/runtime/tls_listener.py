"""A port behind which only members of the private network get: each connection is a stranger until TLS says not."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from node.errors import Refused
from node.runtime import logs
from node.runtime.addresses import join_address
from node.runtime.tls import Gate, ProtocolFactory, Tls, explain

HANDSHAKE_TIMEOUT_S = 5.0  # a member's takes milliseconds
MAX_HANDSHAKES = 64  # strangers at once; what they hold is a socket and a buffer each
ACCEPT_PAUSE_S = 0.1  # where the system has no file descriptors left
MAX_LINES_PER_S = 5  # of the log, for strangers: a scan fills no disk
LISTEN_BACKLOG = 128

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
log = logs.get("tls")


class TlsListener:
    def __init__(self, place: socket.socket, address: str, tls: Tls, factory: ProtocolFactory) -> None:
        self.address = address
        self._socket = place
        self._tls = tls
        self._factory = factory
        self._handshakes: dict[asyncio.Task[None], None] = {}  # oldest first
        self._accepting: asyncio.Task[None] | None = None
        self._said_s = 0.0
        self._said = 0

    def start(self, spawn: Spawn) -> None:
        self._accepting = spawn(self._accept(), "link port")

    def close(self) -> None:
        """The socket goes with the task: the loop may still be watching it now."""
        if self._accepting is not None:
            self._accepting.cancel()
        for task in list(self._handshakes):
            task.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, peer = await loop.sock_accept(self._socket)
                except OSError as error:
                    log.error("accept_failed", error=error.strerror)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                if len(self._handshakes) >= MAX_HANDSHAKES:  # who holds a place for long is no member
                    oldest = next(iter(self._handshakes))
                    del self._handshakes[oldest]
                    oldest.cancel()
                task = loop.create_task(self._shake(connection, join_address(peer[0], peer[1])))
                self._handshakes[task] = None
                task.add_done_callback(lambda done: self._handshakes.pop(done, None))
        finally:
            self._socket.close()

    async def _shake(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        gate = Gate(self._tls, self._factory)
        try:
            await loop.connect_accepted_socket(
                lambda: gate,
                connection,
                ssl=self._tls.server_context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            )
        except (OSError, ssl.SSLError) as error:
            self._say(address, explain(error))
        else:
            if gate.refused:
                self._say(address, gate.refused)

    def _say(self, address: str, cause: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._said_s >= 1:
            self._said_s, self._said = now_s, 0
        self._said += 1
        if self._said <= MAX_LINES_PER_S:
            log.warning("link_refused", address=address, cause=cause)


def bind(address: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises Refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        place = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise Refused(
            f"can't listen at {address}: {why}; end what has it (ss -ltnp), or choose another address"
        ) from error
    place.setblocking(False)
    return place
