"""A connection that a load balancer made: its first bytes say for whom, then it is that peer's."""

import asyncio
from typing import Any, cast

from node.errors import MalformedMessage
from node.frontend.admission import Networks
from node.frontend.connection import House, PeerConnection
from node.peer.proxy import ProxyHeader
from node.runtime import logs
from node.runtime.addresses import join_address

HEADER_TIMEOUT_S = 5.0  # a balancer sends it with the connection

log = logs.get("door")


class Door(asyncio.Protocol):
    """Gives way to a `PeerConnection` as soon as the peer's address is known."""

    def __init__(self, house: House, trusted: Networks, *, only_trusted: bool) -> None:
        """`only_trusted`: who is not a load balancer has no business here; otherwise it is a peer itself."""
        self._house = house
        self._trusted = trusted
        self._only_trusted = only_trusted
        self._header = ProxyHeader()
        self._socket: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's subclasses
        self._socket = socket = cast(asyncio.Transport, transport)
        host, port, *_ = socket.get_extra_info("peername") or ("", 0)
        source = join_address(str(host), int(port))
        if source in self._trusted:
            self._timer = asyncio.get_running_loop().call_later(HEADER_TIMEOUT_S, socket.abort)
        elif self._only_trusted:
            log.warning("not_a_proxy", address=source)
            socket.abort()
        else:
            self._give_way("", b"")

    def data_received(self, data: bytes) -> None:
        if self._socket is None or self._socket.is_closing():
            return
        try:
            proxied = self._header.receive(data)
        except MalformedMessage as error:
            log.warning("proxy_malformed", error=str(error))
            self._socket.abort()
            return
        if proxied is not None:
            self._give_way(proxied.address, proxied.rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._socket = None

    def _give_way(self, address: str, rest: bytes) -> None:
        self._stop_timer()
        socket: Any = self._socket
        connection = PeerConnection(self._house, address=address)
        socket.set_protocol(connection)
        connection.connection_made(socket)
        if rest:
            connection.data_received(rest)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
