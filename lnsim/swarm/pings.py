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
    judged_s: float
    sent_s: float
    peer: LightPeer


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
            pinged += self._ping(peers[self._place], now_s)
        return pinged

    def _ping(self, peer: LightPeer, now_s: float) -> bool:
        session = peer.session
        # A pong would stand in line behind the graph, and say nothing but how long that is.
        if session is None or session.ping_sent_s is not None or peer.sync is not None:
            return False
        session.ping(now_s, self._chance.randrange(MAX_PONG_SIZE))
        self._sent.append(_Ping(now_s + PONG_TIMEOUT_S, now_s, peer))
        return True

    def late(self, now_s: float) -> list[Connection]:
        """Connections whose ping has waited too long for its pong."""
        found = []
        while self._sent and self._sent[0].judged_s <= now_s:
            _, sent_s, peer = self._sent.popleft()
            session = peer.session
            if session is None or session.ping_sent_s != sent_s:
                continue
            if peer.sync is None:
                found.append(session)
            else:  # its download began meanwhile
                self._sent.append(_Ping(now_s + PONG_TIMEOUT_S, sent_s, peer))
        return found
