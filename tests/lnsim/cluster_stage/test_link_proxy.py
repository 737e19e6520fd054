"""Bytes through the proxy, between sockets in one process."""

import asyncio

import pytest

from lnsim import link_proxy
from lnsim.api_client import CallFailed
from lnsim.cluster import wait_until
from lnsim.link_proxy import Proxy
from node.runtime.runtime import SystemRuntime


class Socket(asyncio.Protocol):
    def __init__(self):
        self.received = bytearray()
        self.news = asyncio.Event()
        self.is_full = False
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        self.news.set()

    def pause_writing(self):
        self.is_full = True

    def resume_writing(self):
        self.is_full = False

    def connection_lost(self, exc):
        self.transport = None
        self.news.set()

    async def until(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            while len(self.received) < size:
                self.news.clear()
                await self.news.wait()
        return bytes(self.received)

    async def lost(self) -> None:
        async with asyncio.timeout(10):
            while self.transport is not None:
                self.news.clear()
                await self.news.wait()


class Bench:
    def __init__(self, directory):
        self.runtime = SystemRuntime(self.fail)
        self.backend = f"unix:{directory}/backend"
        self.address = f"unix:{directory}/f1"
        self.proxy = Proxy(self.runtime, self.backend, {"f1": self.address})
        self.accepted: asyncio.Queue[Socket] = asyncio.Queue()
        self.listener = None

    def fail(self, task, error):
        raise AssertionError(task) from error

    async def start(self):
        self.listener = await self.runtime.listen(self.backend, self._accept)
        await self.proxy.start()

    def _accept(self):
        socket = Socket()
        self.accepted.put_nowait(socket)
        return socket

    async def connect(self) -> tuple[Socket, Socket]:
        near = await self.runtime.connect(self.address, Socket)
        async with asyncio.timeout(10):
            far = await self.accepted.get()
        near.transport.write(b"hello")
        await far.until(5)
        far.received.clear()
        return near, far

    async def set(self, state: str, delay_s: float = 0.0):
        await self.proxy.call("f1", "set", {"state": state, "delay_s": delay_s})


@pytest.fixture
async def bench(tmp_path):
    made = Bench(tmp_path)
    await made.start()
    yield made
    made.listener.close()
    made.proxy.close()


async def test_bytes_pass_both_ways_and_the_end_of_one_side_ends_the_other(bench):
    near, far = await bench.connect()
    far.transport.write(b"welcome")
    assert await near.until(7) == b"welcome"
    near.transport.write(b"last words")
    near.transport.close()
    assert await far.until(10) == b"last words"
    await far.lost()


async def test_a_cut_link_is_closed_and_refused_until_it_is_open_again(bench):
    near, far = await bench.connect()
    await bench.set("cut")
    await near.lost()
    await far.lost()
    with pytest.raises(OSError):  # noqa: PT011 - whichever way nobody answers
        await bench.runtime.connect(bench.address, Socket)
    await bench.set("open")
    await bench.connect()


async def test_a_clogged_link_holds_its_writer_up_and_loses_nothing(bench):
    near, far = await bench.connect()
    await bench.set("clog")
    sent = b"".join(number.to_bytes(4, "big") for number in range(1 << 20))
    near.transport.write(sent)
    far.transport.write(b"back")

    async def is_full() -> bool:
        return near.is_full

    await wait_until(is_full, 5, "the writer is held up")
    assert not far.received
    assert not near.received
    await bench.set("open")
    assert await far.until(len(sent)) == sent
    assert await near.until(4) == b"back"


async def test_a_delayed_link_delivers_later_and_in_order(bench):
    near, far = await bench.connect()
    loop = asyncio.get_running_loop()
    await bench.set("delay", 0.2)
    began_s = loop.time()
    near.transport.write(b"one")
    await far.until(3)
    assert loop.time() - began_s >= 0.2
    near.transport.write(b"two")
    await bench.set("delay", 0.01)
    near.transport.write(b"three")
    await bench.set("open")
    near.transport.write(b"four")
    assert await far.until(15) == b"onetwothreefour"


async def test_what_is_delayed_is_bounded(bench, monkeypatch):
    monkeypatch.setattr(link_proxy, "MAX_HELD_BYTES", 1_000)
    near, far = await bench.connect()
    await bench.set("delay", 0.05)
    sent = bytes(4 << 20)
    near.transport.write(sent)

    async def is_full() -> bool:
        return near.is_full

    await wait_until(is_full, 5, "the writer is held up")
    await bench.set("open")
    assert await far.until(len(sent)) == sent


async def test_without_a_backend_the_frontend_is_told_by_the_end_of_its_connection(bench):
    bench.listener.close()
    near = await bench.runtime.connect(bench.address, Socket)
    await near.lost()


@pytest.mark.parametrize(
    ("target", "name", "arguments"),
    [
        ("f2", "set", {"state": "cut"}),
        ("f1", "get", {}),
        ("f1", "set", {"state": "bent"}),
        ("f1", "set", {"state": "delay", "delay_s": -1}),
    ],
)
async def test_nonsense_is_refused(bench, target, name, arguments):
    with pytest.raises(CallFailed):
        await bench.proxy.call(target, name, arguments)
