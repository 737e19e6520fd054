"""Onion addresses from lntor, by its file and by the API: announced, changed and taken back, and gone for good in time."""

import asyncio
from base64 import b32encode
from hashlib import sha3_256
from pathlib import Path
from types import SimpleNamespace

import pytest

from node.backend.announcer import Announcer
from node.backend.commands import Commands
from node.backend.onions import CHANGE_EVERY_S, GONE_AFTER_S, MAX_CHANGES, MAX_ONIONS
from node.crypto.keys import public_key
from node.errors import Refused
from node.gossip.raw import node_addresses, node_timestamp
from node.runtime.config import BackendConfig
from node.runtime.tor_config import TorConfig
from node.wire.addresses import decode_addresses
from node.wire.features import Features

FIRST = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
SECOND = "duckduckgogg42xjoc72x3sjasowoarfbgcmvfimaftt6twagswzczad.onion"
SECRET = b"\x11" * 32
NODE_ID = public_key(SECRET)


class World:
    """An announcer whose node has an announced channel; what goes out to the network is written down."""

    def __init__(
        self,
        path: Path,
        *,
        announce: bool = True,
        own: tuple[str, ...] = ("1.2.3.4:9735",),
        file: bool = True,
    ) -> None:
        self.file, self.announce, self.own = path / "address", announce, own
        self.has_file = file
        self.stored: dict[object, object] = {}
        self.leads = True
        self.now_s = 1_000_000.0
        self.node = SimpleNamespace(node_id=NODE_ID, announcement=None)
        self.graph = SimpleNamespace(nodes={NODE_ID: self.node}, channels={})
        self.said: list[list[str]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.start()

    def start(self) -> None:
        """A backend process of its own; what it announced before is in the graph, what it was told in the database."""
        tor = TorConfig(address_file=str(self.file) if self.has_file else "", announce=self.announce)
        config = BackendConfig(announce_addresses=self.own, tor=tor)
        channels = SimpleNamespace(by_id={})
        self.announcer = Announcer(self, self, channels, self, config, SECRET, NODE_ID, Features())  # type: ignore[arg-type]  # fakes
        self.announcer._updates[b"c" * 32] = b""  # a channel that is announced
        self.announcer.load(self)  # type: ignore[arg-type]  # a fake
        self.announcer.resume([])
        self.commands = Commands(self)  # type: ignore[arg-type]  # a fake

    def may_speak(self) -> bool:
        return self.leads

    def write(self, sql: str, key: object, value: object) -> None:
        self.stored[key] = value

    def meta(self, key: str) -> object:
        return self.stored.get(key)

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return []

    async def tell(self, address: str, **more: bool) -> bool:
        return (await self.commands.onion_address(address=f"{address}:9735", **more))["announced"]

    def now(self) -> float:
        return self.now_s

    monotonic = now

    def spawn(self, work, name) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def run_blocking(self, lane, work):
        await asyncio.sleep(0)
        return work()

    def change(self, delta) -> None:
        if self.node.announcement is not None:
            assert node_timestamp(delta.announcement) > node_timestamp(self.node.announcement)
        self.node.announcement = delta.announcement
        self.said.append([each.host for each in decode_addresses(node_addresses(delta.announcement))])

    async def after(self, seconds: float) -> list[list[str]]:
        """All that was said until then."""
        self.now_s += seconds
        self.announcer.sweep()
        await asyncio.gather(*self.tasks)
        return self.said


async def test_whoever_has_the_graph_sees_where_a_node_announces_to_be(tmp_path):
    world = World(tmp_path)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    known = {"node_id": NODE_ID.hex(), "announced": True, "addresses": ["1.2.3.4:9735", f"{FIRST}:9735"]}
    assert (await world.commands.graph())["nodes"] == [known]
    world.node.announcement = None
    assert (await world.commands.graph())["nodes"] == [{**known, "announced": False, "addresses": []}]


async def test_it_is_announced_and_follows_the_file(tmp_path):
    world = World(tmp_path)
    assert await world.after(10) == [["1.2.3.4"]]
    world.file.write_text(f"{FIRST}:9735\n")
    assert (await world.after(10))[1:] == [["1.2.3.4", FIRST]]
    assert world.announcer.addresses == ("1.2.3.4:9735", f"{FIRST}:9735")
    await world.after(10)
    world.file.write_text(f"{SECOND}:9735\n")
    assert (await world.after(10))[2:] == [["1.2.3.4", SECOND]]


async def test_lntor_may_restart_and_nobody_hears_of_it(tmp_path):
    world = World(tmp_path)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    for _ in range(3):
        world.file.unlink()
        await world.after(GONE_AFTER_S / 2)
        world.file.write_text(f"{FIRST}:9735\n")
        await world.after(10)
    assert len(world.said) == 2


async def test_gone_for_good_is_gone(tmp_path):
    world = World(tmp_path)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    world.file.unlink()
    await world.after(GONE_AFTER_S - 20)
    assert len(world.said) == 2
    assert (await world.after(30))[2:] == [["1.2.3.4"]]
    assert len(await world.after(10)) == 3


async def test_a_backend_that_starts_before_lntor_announces_nothing_new(tmp_path):
    world = World(tmp_path)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    world.file.unlink()
    world.start()
    await world.after(60)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    assert len(world.said) == 2
    world.file.unlink()
    world.start()
    assert (await world.after(GONE_AFTER_S + 10))[2:] == [["1.2.3.4"]]


async def test_switched_off_it_goes_with_the_next_start(tmp_path):
    world = World(tmp_path)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    world.announce = False
    world.start()
    assert (await world.after(10))[2:] == [["1.2.3.4"]]


async def test_an_address_that_is_configured_too_is_announced_once(tmp_path):
    world = World(tmp_path, own=(f"{FIRST}:9735",))
    world.file.write_text(f"{FIRST}:9735\n")
    assert await world.after(10) == [[FIRST]]
    world.file.unlink()
    assert await world.after(GONE_AFTER_S * 2) == [[FIRST]]


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe", b"1.2.3.4:9735", f"{FIRST}".encode(), f"{FIRST[1:]}:9735".encode(), bytes(1_000_000)],
)
async def test_a_file_that_holds_something_else_is_no_address(tmp_path, text):
    world = World(tmp_path)
    world.file.write_bytes(text)
    assert await world.after(10) == [["1.2.3.4"]]
    world.file.unlink()
    world.file.mkdir()
    assert await world.after(10) == [["1.2.3.4"]]


def remote(tmp_path, **more):
    return World(tmp_path, file=False, **more)


def another(number: int) -> str:
    return onion_of(bytes([number]) * 32)


def onion_of(key: bytes) -> str:
    checksum = sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
    return b32encode(key + checksum + b"\x03").decode().lower() + ".onion"


async def test_the_api_has_it_announced_and_taken_out_at_once(tmp_path):
    world = remote(tmp_path)
    assert await world.tell(FIRST)
    assert world.said[-1] == ["1.2.3.4", FIRST]
    assert not await world.tell(FIRST, announce=False)
    assert world.said[-1] == ["1.2.3.4"]
    assert len(world.said) == 3


async def test_what_is_said_again_is_not_announced_again(tmp_path):
    world = remote(tmp_path)
    for _ in range(20):
        assert await world.tell(FIRST)
        assert await world.tell(FIRST.upper().replace("ONION", "onion"))
        await world.after(60)
    assert len(world.said) == 2
    for _ in range(3):
        await world.tell(FIRST, announce=False)
    assert len(world.said) == 3


async def test_an_lntor_that_died_for_good_is_gone_ten_minutes_after_its_last_word(tmp_path):
    world = remote(tmp_path)
    await world.tell(FIRST)
    await world.after(GONE_AFTER_S - 10)
    assert len(world.said) == 2
    assert (await world.after(20))[2:] == [["1.2.3.4"]]


async def test_after_a_restart_it_holds_until_lntor_says_otherwise(tmp_path):
    world = remote(tmp_path)
    await world.tell(FIRST)
    world.now_s += GONE_AFTER_S * 5  # the backend was away for long
    world.start()
    await world.after(GONE_AFTER_S - 10)
    assert world.announcer.addresses == ("1.2.3.4:9735", f"{FIRST}:9735")
    assert await world.tell(FIRST)
    assert len(world.said) == 2
    world.start()
    assert (await world.after(GONE_AFTER_S + 10))[2:] == [["1.2.3.4"]]
    world.start()
    assert world.announcer.addresses == ("1.2.3.4:9735",)


async def test_a_backend_that_is_to_announce_none_says_so_and_forgets_what_it_had(tmp_path):
    world = remote(tmp_path)
    await world.tell(FIRST)
    world.announce = False
    world.start()
    assert world.said[2:] == [["1.2.3.4"]]
    with pytest.raises(
        Refused, match=r"onion_address: tor\.announce is false at the backend; set it to true"
    ):
        await world.tell(FIRST)
    with pytest.raises(Refused, match=r"tor\.announce is false"):  # `lntor check` hears of it, too
        await world.commands.onion_address()
    assert not await world.tell(FIRST, announce=False)
    world.announce = True
    world.start()
    assert len(world.said) == 3


async def test_two_lntors_have_their_addresses_side_by_side(tmp_path):
    world = World(tmp_path)
    world.file.write_text(f"{FIRST}:9735\n")
    await world.after(10)
    await world.tell(SECOND)
    assert sorted(world.said[-1]) == sorted(["1.2.3.4", FIRST, SECOND])
    assert await world.tell(FIRST, announce=False)  # the file still holds it
    assert not await world.tell(SECOND, announce=False)
    assert world.said[-1] == ["1.2.3.4", FIRST]


async def test_what_is_configured_too_stays_and_lntor_hears_of_it(tmp_path):
    world = remote(tmp_path, own=(f"{FIRST.upper().replace('ONION', 'onion')}:9735",))
    assert await world.tell(FIRST, announce=False)


async def test_no_host_fills_the_announcement(tmp_path):
    world = remote(tmp_path)
    for number in range(MAX_ONIONS):
        await world.tell(another(number))
    with pytest.raises(Refused, match=f"{MAX_ONIONS} others are announced already"):
        await world.tell(another(99))
    assert await world.tell(another(0))
    assert len(world.said) == 1 + MAX_ONIONS


async def flip(world, times):
    """Announced and taken back in turn; what was refused."""
    refused = []
    for number in range(times):
        try:
            await world.tell(FIRST, announce=number % 2 == 0)
        except Refused as error:
            refused.append(str(error))
    return refused


async def test_a_tor_host_that_flips_its_address_is_heard_by_the_network_once_a_minute(tmp_path):
    world = remote(tmp_path)
    assert await flip(world, MAX_CHANGES) == []
    refused = await flip(world, 100)
    assert len(refused) >= 50  # the others asked for what was so
    assert "onion_address: changed too often; tried again by itself" in refused[0]
    assert len(world.said) == 1 + MAX_CHANGES
    for minute in range(2, 10):
        world.now_s += CHANGE_EVERY_S
        await flip(world, 100)
        assert len(world.said) == MAX_CHANGES + minute
    assert world.stored["onions"] in (b"", f"{FIRST}:9735".encode())


async def test_after_too_many_changes_the_last_word_holds_within_a_minute(tmp_path):
    world = remote(tmp_path)
    await world.tell(SECOND)
    await flip(world, MAX_CHANGES - 1)
    assert world.said[-1] == ["1.2.3.4", SECOND, FIRST]
    assert await world.tell(SECOND)  # what stays as it is is taken
    with pytest.raises(Refused, match="changed too often"):
        await world.tell(FIRST, announce=False)
    world.now_s += CHANGE_EVERY_S
    assert not await world.tell(FIRST, announce=False)
    assert world.said[-1] == ["1.2.3.4", SECOND]
    world.now_s += MAX_CHANGES * CHANGE_EVERY_S
    assert await flip(world, MAX_CHANGES) == []


async def test_who_does_not_lead_takes_nothing(tmp_path):
    world = remote(tmp_path)
    world.leads = False
    for address in (f"{FIRST}:9735", ""):
        with pytest.raises(Refused, match="onion_address: this backend does not lead"):
            await world.commands.onion_address(address=address)
    assert len(world.said) == 1


async def test_without_an_address_nothing_happens(tmp_path):
    world = remote(tmp_path)
    assert await world.commands.onion_address() == {"address": "", "announced": False}
    assert len(world.said) == 1


@pytest.mark.parametrize(
    "address",
    ["1.2.3.4:9735", "example.com:9735", f"{FIRST[1:]}:9735", f"a{FIRST[1:]}:9735", FIRST, f"{FIRST}:0",
     f"{FIRST}:70000", "unix:/x.onion:1", "\0:1", "ä.onion:1"],
)  # fmt: skip
@pytest.mark.parametrize("announce", [True, False])
async def test_what_is_no_onion_address_is_refused_with_a_remedy(tmp_path, address, announce):
    world = remote(tmp_path)
    with pytest.raises(
        Refused, match=r"^onion_address: .*; ADDRESS\.onion:PORT is what `lntor address` prints"
    ):
        await world.commands.onion_address(address=address, announce=announce)
    assert len(world.said) == 1
