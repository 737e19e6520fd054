"""A light peer: an identity that wants to be connected, over one connection after the other."""

import asyncio
from hashlib import sha256
from typing import Protocol

from lnsim.swarm.connection import Connection
from lnsim.swarm.sync import Sync

CIRCUIT_SIZE = 16  # characters of a circuit's name: no two peers of a run share one


class Crowd(Protocol):
    """The peers of a swarm, as one of them sees it."""

    def connection(self, peer: "LightPeer", settled: asyncio.Future[None]) -> Connection: ...
    def joined(self, peer: "LightPeer") -> None: ...
    def left(self, peer: "LightPeer", was_ready: bool) -> None: ...
    def answered(self, ping_sent_s: float, as_asked: bool) -> None: ...
    def gossip(self, peer: "LightPeer", raw: bytes) -> None: ...


class LightPeer:
    """Implements `dialler.Caller` and `connection.Owner`."""

    __slots__ = (
        "_connected",
        "_crowd",
        "connection",
        "failures",
        "lost_s",
        "secret",
        "since_s",
        "sync",
        "wanted",
    )

    def __init__(self, crowd: Crowd, secret: bytes) -> None:
        self._crowd = crowd
        self.secret = secret
        self.connection: Connection | None = None
        self.wanted = True
        self.failures = 0
        self.since_s = 0.0  # of its last attempt, then of its session
        self.lost_s: float | None = None  # None: connected, or not yet for the first time
        self.sync: Sync | None = None
        self._connected = False

    @property
    def circuit(self) -> str:
        """The same on every connection of this peer, and nobody else's."""
        return sha256(self.secret).hexdigest()[:CIRCUIT_SIZE]

    @property
    def session(self) -> Connection | None:
        """Its connection, where that is past the init messages."""
        return self.connection if self._connected else None

    def dial(self, settled: asyncio.Future[None]) -> Connection:
        self.connection = self._crowd.connection(self, settled)
        return self.connection

    def dismiss(self) -> None:
        """Leave for good."""
        self.wanted = False
        if self.connection is not None:
            self.connection.abort()

    # Owner

    def ready(self) -> None:
        self._connected = True
        self._crowd.joined(self)

    def received(self, raw: bytes) -> None:
        self._crowd.gossip(self, raw)

    def ponged(self, as_asked: bool) -> None:
        assert self.connection is not None
        assert self.connection.ping_sent_s is not None
        self._crowd.answered(self.connection.ping_sent_s, as_asked)

    def lost(self) -> None:
        was_ready, self._connected = self._connected, False
        self.connection = self.sync = None
        self._crowd.left(self, was_ready)
