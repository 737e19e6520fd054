"""Which frontend dials: the one that can, may, and has the least to do."""

from typing import Any

import pytest

from node.backend.graph_ages import GraphAges
from node.backend.placing import dialling, is_reached, place
from node.errors import Refused
from node.link.messages import OWN_PROXY, PROXIES, Dialling
from node.runtime.tor_config import TorConfig

NEW = ("ipv4", "ipv6", "dns", "onion", PROXIES)  # what a frontend of this release says by default
ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9735"
TOR = Dialling(socks="127.0.0.1:9050")
DIRECT = Dialling()


class FakeLink:
    def __init__(
        self, name: str, sessions: int = 0, *, reaches=("ipv4", "ipv6"), draining=False, writable=True
    ):
        self.name, self.capabilities, self.draining, self.writable = name, reaches, draining, writable
        self.sessions, self.dials = dict.fromkeys(range(sessions)), {}


def placed(address: str, *links: Any, by: Dialling = DIRECT) -> str:
    return place(links, address, by).name


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
        (ONION, (FakeLink("f1", reaches=NEW),), "no frontend reaches onion addresses; name a SOCKS proxy"),
        (
            "[2001:db8::1]:9735",
            (FakeLink("f1", reaches=("ipv4", PROXIES)),),
            "ipv6 addresses; see `reaches` of",
        ),
        ("1.2.3.4:9735", (FakeLink("f1", draining=True),), "drained"),
    ],
)
def test_where_none_will_do_it_says_why(address: str, links: tuple, why: str):
    with pytest.raises(Refused, match=why):
        placed(address, *links)


def test_an_onion_address_goes_to_a_frontend_with_a_proxy():
    old, new = FakeLink("old"), FakeLink("new", 9, reaches=NEW)
    own = FakeLink("own", 9, reaches=(*NEW, OWN_PROXY))
    assert placed(ONION, old, new, by=TOR) == "new"
    assert placed(ONION, old, new, own) == "own"
    assert (
        placed(ONION.upper(), old, FakeLink("clearnet", reaches=("ipv4", "dns", PROXIES)), new, by=TOR)
        == "new"
    )


@pytest.mark.parametrize(
    "address", ["1.2.3.4:9735", "[2001:db8::1]:9735", "a.example:9735", "[::ffff:1.2.3.4]:9735"]
)
def test_of_a_node_that_speaks_through_tor_alone_no_old_frontend_dials(address: str):
    only = dialling(TorConfig(socks="127.0.0.1:9050", only=True))
    assert placed(address, FakeLink("old"), FakeLink("new", 9, reaches=NEW), by=only) == "new"
    with pytest.raises(Refused, match="no frontend reaches"):
        placed(address, FakeLink("old"), by=only)


def test_what_is_never_dialled_says_so():
    never = Dialling(dns="never", onion="invented later")
    with pytest.raises(Refused, match="dns addresses are not dialled"):
        placed("a.example:9735", FakeLink("new", reaches=NEW), by=never)
    assert not is_reached([FakeLink("new", reaches=NEW)], "a.example:9735", never)  # type: ignore[list-item]  # fake
    assert is_reached([FakeLink("new", reaches=NEW)], "unix:/run/peer", never)  # type: ignore[list-item]  # fake


def test_tor_only_leaves_nothing_direct():
    told = dialling(TorConfig(socks="10.0.0.1:9050", only=True, ipv6="never"))
    assert (told.ipv4, told.ipv6, told.dns, told.onion, told.only) == (
        "proxy",
        "never",
        "proxy",
        "proxy",
        True,
    )
    assert dialling(TorConfig()) == Dialling()


def test_a_copy_of_the_graph_is_as_old_as_the_first_change_that_it_lacks():
    ages = GraphAges()
    for now_s, sequence in ((0.0, 5), (1.0, 5), (2.0, 6), (3.0, 8)):
        ages.sample(now_s, sequence)
    assert [ages.age_s(10.0, sequence) for sequence in (8, 7, 6, 5)] == [0.0, 7.0, 7.0, 8.0]
