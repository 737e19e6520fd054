"""Moments of a demo to draw, made without running one."""

import math

from msgspec.structs import replace

from lnsim.demo_state import (
    FrontendState,
    Health,
    Note,
    PaymentsState,
    PeerState,
    ProcessState,
    Pulse,
    Scene,
    TorState,
)

NODE_ID = "02" + "ab" * 32
ONION = "k" * 56 + ".onion:9735"


def running(*, killed: bool = False, peers: int = 5) -> Scene:
    names = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")[:peers]
    frontend_of = ["f2"] * peers if killed else ["f1", "f2", "f2", "f1", "f2", "f1", "f1", "f2"][:peers]
    if killed:
        frontend_of[3] = None
    return Scene(
        seed=42,
        now_s=83.4,
        phase="running",
        height=117,
        commits_per_s=61,
        frontends=(
            FrontendState(
                name="f1",
                health=Health.DOWN if killed else Health.UP,
                sessions=2,
                in_per_s=212,
                out_per_s=198,
            ),
            FrontendState(name="f2", sessions=3, in_per_s=305, out_per_s=311),
        ),
        processes=(
            ProcessState(name="backend", pid=11, cpu_share=0.31, rss_mb=92),
            ProcessState(
                name="f1", health=Health.DOWN if killed else Health.UP, pid=12, cpu_share=0.06, rss_mb=48
            ),
            ProcessState(name="f2", pid=13, cpu_share=0.09, rss_mb=48),
            ProcessState(name="chain", pid=14, cpu_share=0.01, rss_mb=61),
            ProcessState(name=f"{peers} peers", cpu_share=0.87, rss_mb=440),
        ),
        peers=tuple(
            PeerState(
                name=name,
                frontend=frontend,
                hub_msat=(1_200 + 600 * index) * 1_000_000,
                peer_msat=(3_800 - 600 * index) * 1_000_000,
                usable=frontend is not None,
            )
            for index, (name, frontend) in enumerate(zip(names, frontend_of, strict=True))
        ),
        pulses=(
            Pulse("alice", "carol", 83.0, True),
            Pulse("bob", "erin", 82.6, True),
            Pulse("hub", "dave", 83.1, True),
            Pulse("erin", "hub", 83.2, False),
        ),
        payments=PaymentsState(
            attempted=2_481,
            settled=2_466,
            failed=11,
            pending=4,
            per_s=tuple(30 + 9 * math.sin(tick / 5) + 4 * math.sin(tick) for tick in range(160)),
            p50_ms=41.2,
            p99_ms=97.7,
        ),
        notes=(
            Note(0.9, "info", "5 peers connected"),
            Note(1.4, "info", "5 channels funded, block 117"),
            Note(3.2, "good", "gossip complete, paying"),
            Note(61.0, "bad", "f1 killed, 2 sessions cut"),
            Note(61.4, "good", "alice back via f2, 0.4 s"),
            Note(62.6, "good", "f1 up again, pid 4711"),
        ),
        peer_address=f"{NODE_ID}@127.0.0.1:38411",
        chain_url="http://127.0.0.1:41873",
    )


def by_onion(health: Health = Health.UP) -> Scene:
    """Two of the five come through tor."""
    scene = running(killed=True)
    peers = tuple(replace(peer, by_onion=peer.name in ("alice", "carol")) for peer in scene.peers)
    if health is Health.STARTING:
        return Scene(seed=1, peers=peers, tor=TorState())
    up = health is Health.UP
    tor = TorState(
        health=health,
        address=ONION,
        bootstrapped=100 if up else 0,
        published_ago_s=65.2 if up else None,
        targets=(("f1", False), ("f2", True)),
        circuits=3,
        streams=2,
    )
    return replace(scene, peers=peers, tor=tor)
