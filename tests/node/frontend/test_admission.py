"""Limits at the door: one address, one IPv6 /64, this frontend's share; and gossip served."""

import pytest
from msgspec.structs import replace

from node.frontend.admission import MAX_TRACKED, UNLIMITED, Admission, GossipBudget, Networks, site
from node.link.messages import Shares


def limits(**those) -> Shares:
    return replace(UNLIMITED, **those)


LIMITS = limits(handshakes_per_address=2, connections_per_address=5, connections_per_s_per_address=4)


def admission(shares: Shares = LIMITS, exempt: tuple[str, ...] = (), most: int = 1_000) -> Admission:
    made = Admission(exempt, most, 0.0)
    made.share(shares)
    return made


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("192.0.2.1:5", "192.0.2.1"),
        ("[2001:db8:1:2:3:4:5:6]:9735", "2001:db8:1:2::"),
        ("[2001:db8:1:2::]:1", "2001:db8:1:2::"),
        ("[::ffff:192.0.2.1]:7", "192.0.2.1"),
        ("[fc00:dead:beef:4dad::ab:12]:9735", "fc00:dead:beef:4dad::ab:12"),  # a circuit, as tor tells it
        ("unix", ""),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, counts_as: str) -> None:
    assert site(address) == counts_as


def test_handshakes_of_one_address_are_bounded_until_they_are_through() -> None:
    door = admission()

    assert [door.enter("192.0.2.1:1", 0), door.enter("192.0.2.1:2", 0)] == ["", ""]
    assert door.enter("192.0.2.1:3", 0) == "address_handshakes"
    assert door.enter("192.0.2.2:3", 0) == ""
    door.shaken("192.0.2.1:1")
    assert door.enter("192.0.2.1:4", 0) == ""
    door.leave("192.0.2.1:4", shaking=True)
    assert door.enter("192.0.2.1:5", 0) == ""
    assert door.refused == {"address_handshakes": 1}


def test_connections_of_one_address_are_bounded_and_come_back() -> None:
    door = admission()
    for port in range(5):
        assert door.enter(f"192.0.2.1:{port}", port) == ""
        door.shaken(f"192.0.2.1:{port}")

    assert door.enter("192.0.2.1:9", 9) == "address_connections"
    door.leave("192.0.2.1:0", shaking=False)
    assert door.enter("192.0.2.1:9", 9) == ""
    assert (door.connections, door.handshakes) == (5, 1)


def test_a_whole_ipv6_network_is_one_address() -> None:
    door = admission()

    assert [door.enter(f"[2001:db8::{host:x}]:1", 0) for host in range(3)] == ["", "", "address_handshakes"]
    assert door.enter("[2001:db8:0:1::1]:1", 0) == ""


def test_new_connections_of_one_address_have_a_rate() -> None:
    door = admission(limits(connections_per_s_per_address=4))
    came = [door.enter("192.0.2.1:1", 0.0) for _ in range(13)]

    assert came == [""] * 12 + ["address_connection_rate"]
    assert [door.enter("192.0.2.1:1", 0.5) for _ in range(3)] == ["", "", "address_connection_rate"]


def test_exempt_addresses_have_no_limit_of_their_own() -> None:
    door = admission(exempt=("127.0.0.0/8", "::1", "10.1.0.0/16"))

    for address in ("127.0.0.1:1", "[::1]:1", "10.1.2.3:4", "somewhere"):
        assert [door.enter(address, 0) for _ in range(10)] == [""] * 10


def test_shares_of_the_node_hold_for_all_addresses_together() -> None:
    door = admission(UNLIMITED)
    door.share(Shares(1, 2, 3, 10.0, 1e6))

    assert [door.enter(f"10.0.0.{host}:1", 0) for host in range(3)] == ["", "", "node_handshakes"]
    door.shaken("10.0.0.0:1")
    door.shaken("10.0.0.1:1")
    assert [door.enter(f"10.0.1.{host}:1", 0) for host in range(2)] == ["", "node_connections"]
    assert door.shares == 1


def test_new_connections_keep_to_the_share_a_second() -> None:
    door = admission(UNLIMITED)
    door.share(Shares(1, 99, 99, 3.0, 1e6))

    assert [door.enter("10.0.0.1:1", 0) for _ in range(4)] == ["", "", "", "node_connection_rate"]
    assert [door.enter("10.0.0.1:1", 1) for _ in range(4)] == ["", "", "", "node_connection_rate"]


def test_a_process_has_a_bound_of_its_own() -> None:
    door = admission(UNLIMITED, most=1)

    assert [door.enter("10.0.0.1:1", 0), door.enter("10.0.0.2:1", 0)] == ["", "no_room"]


def test_addresses_that_are_gone_are_forgotten_and_never_too_many_kept(monkeypatch) -> None:
    monkeypatch.setattr("node.frontend.admission.MAX_TRACKED", 50)
    door = admission()
    for host in range(200):
        address = f"10.0.{host}.1:1"
        assert door.enter(address, 0) == ""
        door.leave(address, shaking=True)
    assert len(door._sources) == 50
    door.sweep(60)
    assert not door._sources
    assert MAX_TRACKED == 100_000


def test_a_network_that_is_none_is_nowhere() -> None:
    networks = Networks(["10.0.0.0/8", "2001:db8::/32"])

    assert "10.2.3.4:5" in networks
    assert "[2001:db8::5]:1" in networks
    assert "11.0.0.1:5" not in networks
    assert "gibberish" not in networks


def test_a_peer_has_its_burst_then_its_rate_also_after_a_reconnect() -> None:
    budget = GossipBudget(0.0)
    budget.share(limits(gossip_bytes_per_s_per_peer=100, gossip_burst_per_peer=1_000))

    assert budget.allows(b"a", 0)
    budget.spend(b"a", 1_200, 0)
    assert not budget.allows(b"a", 1)
    assert budget.allows(b"b", 1)
    assert budget.allows(b"a", 2.1)
    budget.sweep(3)
    assert not budget.allows(b"a", 0)
    budget.sweep(60)
    assert budget.served == 1_200


def test_all_peers_together_keep_to_the_share() -> None:
    budget = GossipBudget(0.0)
    budget.share(Shares(1, 1, 1, 1.0, 1_000.0))
    budget.spend(b"a", 1_500, 0)

    assert not budget.allows(b"b", 1)
    assert budget.allows(b"b", 2)


def test_without_limits_everything_is_allowed() -> None:
    budget = GossipBudget(0.0)
    budget.spend(b"a", 1 << 40, 0)

    assert budget.allows(b"a", 0)
