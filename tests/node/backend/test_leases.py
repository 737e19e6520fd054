"""The node's limits, leased: shares follow the load and never add up to more than the limit."""

import random

import pytest

from node.backend.leases import Leases
from node.link import frames
from node.link.messages import Shares, Status
from node.runtime.config import LimitsConfig

LIMIT = 1_000
CONFIG = LimitsConfig(handshakes=LIMIT, connections=LIMIT, connections_per_s=100, gossip_bytes_per_s=1_000)


class Frontend:
    """Obeys the shares that it has heard of, and says what it uses."""

    def __init__(self, *, old: bool = False) -> None:
        self.capabilities = () if old else ("ipv4", "shares")
        self.status: Status | None = None
        self.heard: list[Shares] = []
        self.sessions = 0

    def write(self, frame: bytes) -> None:
        ((_, body),) = frames.FrameReader().receive(frame)
        message = frames.decode_to_frontend(body)
        assert isinstance(message, Shares)
        self.heard.append(message)

    @property
    def share(self) -> int:
        return self.heard[-1].connections

    def report(self, *, rate: float = 0.0) -> None:
        number = self.heard[-1].number if self.heard else 0
        self.status = Status(self.sessions, 0, 0, 0, 0, 0, 0, rate, rate, number)


def test_one_frontend_has_it_all() -> None:
    one = Frontend()
    Leases(CONFIG, {"f1": one}).beat()

    assert one.heard == [Shares(1, LIMIT, LIMIT, 100.0, 1_000.0, 16, 128, 16, 1_000_000, 128_000_000)]


def test_a_second_one_has_its_part_at_once_and_the_first_gives_it_up() -> None:
    one, two = Frontend(), Frontend()
    links = {"f1": one}
    leases = Leases(CONFIG, links)
    leases.beat()
    links["f2"] = two
    leases.beat()

    assert (one.share, two.share) == (500, 500)


def test_shares_follow_the_load() -> None:
    one, two = Frontend(), Frontend()
    leases = Leases(CONFIG, {"f1": one, "f2": two})
    one.sessions = 400
    for _ in range(4):
        leases.beat()
        one.report(rate=60)
        two.report()
    leases.beat()

    assert (one.share, two.share) == (700, 300)
    assert (one.heard[-1].connections_per_s, two.heard[-1].connections_per_s) == (80, 20)


def test_a_rate_that_is_used_up_goes_to_who_uses_it() -> None:
    one, two = Frontend(), Frontend()
    leases = Leases(CONFIG, {"f1": one, "f2": two})
    leases.beat()
    one.report(rate=1_500)
    two.report(rate=500)
    leases.beat()

    assert (one.heard[-1].gossip_bytes_per_s, two.heard[-1].gossip_bytes_per_s) == (750, 250)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_reported_late_the_node_never_has_more_than_its_limit(seed: int) -> None:
    chance = random.Random(seed)
    fronts = [Frontend() for _ in range(3)]
    leases = Leases(CONFIG, {str(at): front for at, front in enumerate(fronts)})
    leases.beat()
    for _ in range(200):
        for front in fronts:
            wanted = chance.randrange(LIMIT)  # peers come up to the share; above it nobody comes, some go
            front.sessions = min(wanted, front.share) if wanted > front.sessions else wanted
            if chance.random() < 0.6:
                front.report()
        assert sum(front.sessions for front in fronts) <= LIMIT
        if chance.random() < 0.8:
            leases.beat()


def test_a_frontend_of_an_older_release_hears_nothing() -> None:
    old = Frontend(old=True)
    Leases(CONFIG, {"f1": old}).beat()

    assert old.heard == []
