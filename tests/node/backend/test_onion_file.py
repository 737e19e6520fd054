"""The onion address from lntor's file: announced when it is there, changed with it, and gone when it is gone for good."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from node.backend.announcer import Announcer
from node.backend.onion_file import GONE_AFTER_S
from node.crypto.keys import public_key
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
        self, path: Path, *, announce: bool = True, own: tuple[str, ...] = ("1.2.3.4:9735",)
    ) -> None:
        self.file, self.announce, self.own = path / "address", announce, own
        self.now_s = 1_000_000.0
        self.node = SimpleNamespace(announcement=None)
        self.graph = SimpleNamespace(nodes={NODE_ID: self.node}, channels={})
        self.said: list[list[str]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.start()

    def start(self) -> None:
        """A backend process of its own; what it announced before is in the graph."""
        tor = TorConfig(address_file=str(self.file), announce=self.announce)
        config = BackendConfig(announce_addresses=self.own, tor=tor)
        channels = SimpleNamespace(by_id={})
        self.announcer = Announcer(self, None, channels, self, config, SECRET, NODE_ID, Features())  # type: ignore[arg-type]  # fakes
        self.announcer._updates[b"c" * 32] = b""  # a channel that is announced
        self.announcer.resume([])

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
