"""A gossip storm's messages: fresh updates, repeated ones, invalid ones."""

from collections import deque
from random import Random

from msgspec import Struct

from lnsim.swarm.stamp import spoilt
from lnsim.swarm.updates import Updates

MAX_RECENT = 256  # of which repeated ones are drawn: recent enough for a node to be still busy with them


class Mixture(Struct, frozen=True):
    """Shares of a storm; what they leave is fresh."""

    duplicate: float = 0.2
    invalid: float = 0.1


class Storm:
    """Mutable; draws one message after the other."""

    def __init__(self, updates: Updates, mixture: Mixture, chance: Random) -> None:
        self._updates = updates
        self._mixture = mixture
        self._chance = chance
        self._recent: deque[bytes] = deque(maxlen=MAX_RECENT)
        self.fresh = self.duplicate = self.invalid = 0

    @property
    def timestamp(self) -> int:
        return self._updates.timestamp

    def next(self, now_s: float) -> bytes:
        drawn = self._chance.random()
        if drawn < self._mixture.duplicate and self._recent:
            self.duplicate += 1
            return self._chance.choice(self._recent)
        raw = self._updates.fresh(now_s)
        if drawn >= 1 - self._mixture.invalid:
            self.invalid += 1
            return spoilt(raw)
        self.fresh += 1
        self._recent.append(raw)
        return raw
