"""Where a peer is dialled: at what is known of it, in an order, and one address after the other."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from node.backend.dialler import Dialler
from node.channel.model import Phase
from node.errors import Refused
from node.link.messages import PROXIES, Dialling
from node.wire.addresses import encode_address
from node.wire.bolt7 import NodeAnnouncement
from node.wire.codec import encode

PEER = b"\x02" + b"p" * 32
ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
ANNOUNCED = (("1.2.3.4", 1), ("2001:db8::1", 2), (ONION, 3), ("node.example", 4))
V4, V6, TOR, NAME = "1.2.3.4:1", "[2001:db8::1]:2", f"{ONION}:3", "node.example:4"
SOCKS = "127.0.0.1:9050"


class World:
    """A peer with a channel, nobody connected; dials fail and are written down."""

    def __init__(self, reaches: tuple[str, ...], dialling: Dialling) -> None:
        self.now_s = 0.0
        self.dialled: list[str] = []
        self.links = {"f1": SimpleNamespace(capabilities=reaches)}
        self.dialling = dialling
        self.held = False
        self.tasks: list[asyncio.Task[None]] = []
        self.random = random.Random(1)
        announcement = NodeAnnouncement(
            bytes(64),
            b"",
            1,
            PEER,
            bytes(3),
            bytes(32),
            b"".join(encode_address(*each) for each in ANNOUNCED),
        )
        graph = SimpleNamespace(nodes={PEER: SimpleNamespace(announcement=encode(announcement))})
        record = SimpleNamespace(channel=SimpleNamespace(phase=Phase.NORMAL))
        channels = SimpleNamespace(by_peer={PEER: {b"c" * 32: record}})
        handshakes = SimpleNamespace(initiator=lambda _: None)
        journal = SimpleNamespace(write=lambda *_: None)
        self.dialler = Dialler(self, journal, self, channels, handshakes, graph, lambda: True)  # type: ignore[arg-type]  # fakes

    def is_held(self, node_id: bytes) -> bool:
        return self.held

    # runtime

    def monotonic(self) -> float:
        return self.now_s

    def spawn(self, work, name):
        self.tasks.append(asyncio.create_task(work))

    # switchboard

    def session_of(self, node_id):
        return None

    async def connect(self, node_id, address, initiator):
        self.dialled.append(address)
        raise Refused("nobody there")

    async def sweeps(self, count: int) -> list[str]:
        for _ in range(count):
            self.now_s += 1_000
            self.dialler.sweep()  # makes its plan
            self.now_s += 1_000
            self.dialler.sweep()
            await asyncio.gather(*self.tasks)
        return self.dialled


@pytest.mark.parametrize(
    ("reaches", "dialling", "order"),
    [
        (("ipv4", "ipv6"), Dialling(), [V4, V6, NAME]),  # an older frontend
        (("ipv4", "ipv6", "dns", "onion", PROXIES), Dialling(), [V4, V6, NAME]),
        (("ipv4", "dns", "onion", PROXIES), Dialling(SOCKS), [V4, NAME, TOR]),
        (
            ("ipv4", "ipv6", "dns", "onion", PROXIES),
            Dialling(SOCKS, ipv4="proxy", ipv6="proxy", dns="proxy"),
            [TOR, V4, V6, NAME],
        ),
        (("ipv4", "ipv6", "dns", "onion", PROXIES), Dialling(SOCKS, ipv4="never", dns="never"), [V6, TOR]),
    ],
)
async def test_only_what_is_reached_and_the_short_way_first(reaches, dialling, order):
    world = World(reaches, dialling)
    assert world.dialler.addresses(PEER) == order
    dialled = await world.sweeps(len(order))
    assert (dialled * 2)[: len(order)] == order


async def test_where_it_was_found_before_comes_first():
    world = World(("ipv4", "ipv6"), Dialling())
    world.dialler._addresses[PEER] = "5.6.7.8:9"
    assert world.dialler.addresses(PEER) == ["5.6.7.8:9", V4, V6, NAME]


async def test_a_peer_can_be_reached_by_name_alone_and_the_last_reason_is_told():
    world = World(("ipv4", "ipv6"), Dialling())
    with pytest.raises(Refused, match=f"{NAME}: nobody there"):
        await world.dialler.reach(PEER)
    assert world.dialled == [V4, V6, NAME]
    with pytest.raises(Refused, match="no address of this peer is known"):
        await world.dialler.reach(b"\x03" * 33)


async def test_where_nothing_is_reached_one_dial_says_why():
    world = World(("onion", PROXIES), Dialling())
    assert world.dialler.addresses(PEER) == [V4]


async def test_a_peer_whose_session_is_held_is_not_dialled_until_that_is_over():
    world = World(("ipv4",), Dialling())
    world.held = True
    assert await world.sweeps(2) == []
    world.held = False
    assert await world.sweeps(1) == [V4]
