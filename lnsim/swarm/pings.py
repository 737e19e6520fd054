"""Pings of all peers of a swarm: one sweep, which comes by everybody once in an interval."""

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from lnsim.swarm.connection import Connection
from lnsim.swarm.peer import LightPeer

SWEEP_S = 0.1
PONG_TIMEOUT_S = 10.0
MAX_PONG_SIZE = 256  # asked for: some cover traffic, little cost


class _Ping(NamedTuple):
    sent_s: float
    connection: Connection


class Pings:
    """Mutable. Remembers the pings of the last PONG_TIMEOUT_S, in their order."""

    def __init__(self, interval_s: float, chance: Random) -> None:
        self._interval_s = interval_s
        self._chance = chance
        self._place = 0
        self._due = 0.0
        self._swept_s: float | None = None
        self._sent: deque[_Ping] = deque()

    def sweep(self, peers: Sequence[LightPeer], now_s: float) -> int:
        """Ping those whose turn has come; returns how many."""
        passed_s = 0.0 if self._swept_s is None else now_s - self._swept_s
        self._swept_s = now_s
        self._due = min(self._due + len(peers) * passed_s / self._interval_s, float(len(peers)))
        pinged = 0
        while self._due >= 1:
            self._due -= 1
            self._place = (self._place + 1) % len(peers)
            pinged += self._ping(peers[self._place].session, now_s)
        return pinged

    def _ping(self, connection: Connection | None, now_s: float) -> bool:
        if connection is None or connection.ping_sent_s is not None:
            return False
        connection.ping(now_s, self._chance.randrange(MAX_PONG_SIZE))
        self._sent.append(_Ping(now_s, connection))
        return True

    def late(self, now_s: float) -> list[Connection]:
        """Connections whose ping has waited too long for its pong; each ping is judged once."""
        found = []
        while self._sent and self._sent[0].sent_s <= now_s - PONG_TIMEOUT_S:
            ping = self._sent.popleft()
            if ping.connection.ping_sent_s == ping.sent_s:
                found.append(ping.connection)
        return found
