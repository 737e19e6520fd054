"""Handshakes of strangers run in this frontend, where it has the node's key and the backend agrees."""

from typing import Protocol

from node.frontend.connection import PeerConnection
from node.link.messages import Established
from node.peer.handshake import HandshakeFailed, Responder
from node.runtime.handshakes import Handshakes
from node.runtime.runtime import Runtime

HANDSHAKES_PER_S = 2_000  # more than a core does


class Uplink(Protocol):
    def act(self, connection: PeerConnection, act: bytes) -> None: ...
    def handshake_done(self, connection: PeerConnection) -> None: ...


class LocalHandshakes:
    """Takes acts as the uplink does; those of our own dials are still the backend's."""

    def __init__(self, runtime: Runtime, uplink: Uplink, secret: bytes) -> None:
        self._runtime = runtime
        self._uplink = uplink
        self._handshakes = Handshakes(runtime, secret, HANDSHAKES_PER_S)
        self._running: dict[int, Responder] = {}

    def handshake_started(self, connection: PeerConnection, act: bytes) -> None:
        try:
            self._running[connection.number] = self._handshakes.responder()
        except HandshakeFailed as error:
            connection.close(error.cause)
            return
        self._runtime.spawn(self._advance(connection, act), "handshake")

    def act(self, connection: PeerConnection, act: bytes) -> None:
        if connection.number in self._running:
            self._runtime.spawn(self._advance(connection, act), "handshake")
        else:
            self._uplink.act(connection, act)

    def forget(self, connection: PeerConnection) -> None:
        self._running.pop(connection.number, None)

    async def _advance(self, connection: PeerConnection, act: bytes) -> None:
        responder = self._running.get(connection.number)
        if responder is None:
            return
        try:
            reply, result = await self._handshakes.act(responder, act)
        except HandshakeFailed as error:
            connection.close(error.cause)
            return
        if connection.ended:
            return
        if result is None:
            connection.act(reply)
            return
        self.forget(connection)
        keys = (result.send_key, result.receive_key, result.chaining_key)
        connection.node_id = result.remote_static
        self._uplink.handshake_done(connection)
        connection.established(Established(connection.number, result.remote_static, *keys))
