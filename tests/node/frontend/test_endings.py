"""Causes as labels: ours by name, whatever a peer words under one."""

from lone_parts import LoneTransport, lone_connection, lone_frontend

from node.frontend.connection import PeerConnection
from node.frontend.endings import label
from node.frontend.metrics import gather
from node.link.messages import Shares


def samples(frontend) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for family in gather(frontend) for s in family.samples}


def test_a_label_is_one_of_ours():
    assert label("connection lost") == "connection_lost"
    assert label("undecodable: whatever a peer says") == "undecodable"
    assert label("a peer's own words") == "other"


async def test_a_frontend_counts_why_its_connections_ended():
    frontend, _ = lone_frontend()
    first, _ = lone_connection(frontend)
    second, _ = lone_connection(frontend)
    first.session.latency_s = 0.25
    found = samples(frontend)
    assert found["lnnode_frontend_sessions", "init"] == 2
    assert found["lnnode_frontend_ping_seconds", "0.99"] == 0.25
    assert found["lnnode_frontend_link_up",] == 1
    assert found["lnnode_frontend_ready",] == 0

    first.close("slow reader")
    second.close("something new")
    found = samples(frontend)
    assert found["lnnode_frontend_sessions_ended_total", "slow_reader"] == 1
    assert found["lnnode_frontend_sessions_ended_total", "other"] == 1


async def test_a_frontend_counts_whom_it_turns_away_and_why():
    frontend, _ = lone_frontend()
    frontend.admission.share(
        Shares(1, handshakes=1, connections=9, connections_per_s=9, gossip_bytes_per_s=9)
    )
    first = PeerConnection(frontend)
    first.connection_made(LoneTransport())
    second = PeerConnection(frontend)
    second.connection_made(LoneTransport())
    assert second.ended
    assert samples(frontend)["lnnode_frontend_refused_total", "node_handshakes"] == 1
