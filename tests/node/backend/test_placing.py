"""Which frontend dials: the one that can, may, and has the least to do."""

from typing import Any

import pytest

from node.backend.graph_ages import GraphAges
from node.backend.placing import place
from node.errors import Refused


class FakeLink:
    def __init__(
        self, name: str, sessions: int = 0, *, reaches=("ipv4", "ipv6"), draining=False, writable=True
    ):
        self.name, self.capabilities, self.draining, self.writable = name, reaches, draining, writable
        self.sessions, self.dials = dict.fromkeys(range(sessions)), {}


def placed(address: str, *links: Any) -> str:
    return place(links, address).name


def test_the_one_with_the_least_to_do():
    assert placed("1.2.3.4:9735", FakeLink("busy", 9), FakeLink("idle", 1)) == "idle"
    assert placed("1.2.3.4:9735", FakeLink("stuck", 0, writable=False), FakeLink("busy", 9)) == "busy"


def test_never_one_that_is_drained_or_can_not():
    assert placed("1.2.3.4:9735", FakeLink("drained", draining=True), FakeLink("busy", 9)) == "busy"
    assert placed("[2001:db8::1]:9735", FakeLink("v4", reaches=("ipv4",)), FakeLink("both", 9)) == "both"
    assert placed("a.example:9735", FakeLink("v4", reaches=("ipv4",))) == "v4"
    assert placed("1.2.3.4:9735", FakeLink("older", reaches=())) == "older"


@pytest.mark.parametrize(
    ("address", "links", "why"),
    [
        ("1.2.3.4:9735", (), "no frontend is connected"),
        ("abc.onion:9735", (FakeLink("f1"),), "no frontend reaches tor"),
        ("1.2.3.4:9735", (FakeLink("f1", draining=True),), "drained"),
    ],
)
def test_where_none_will_do_it_says_why(address: str, links: tuple, why: str):
    with pytest.raises(Refused, match=why):
        placed(address, *links)


def test_a_copy_of_the_graph_is_as_old_as_the_first_change_that_it_lacks():
    ages = GraphAges()
    for now_s, sequence in ((0.0, 5), (1.0, 5), (2.0, 6), (3.0, 8)):
        ages.sample(now_s, sequence)
    assert [ages.age_s(10.0, sequence) for sequence in (8, 7, 6, 5)] == [0.0, 7.0, 7.0, 8.0]
