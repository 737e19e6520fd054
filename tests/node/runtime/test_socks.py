"""Connections through a SOCKS5 proxy: every answer that there is, and those that there should not be."""

import asyncio

import pytest
from socks_server import GRANTED, Asked, SocksServer, reply

from node.errors import Refused
from node.runtime.runtime import SystemRuntime
from node.runtime.socks import REASONS, Proxy

ONION = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion"
SHORT_S = 0.3


class End(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.made = 0

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.made += 1

    def data_received(self, data: bytes) -> None:
        self.heard.put_nowait(data)


@pytest.fixture
def runtime():
    failures: list[BaseException] = []
    yield SystemRuntime(lambda _, error: failures.append(error))
    assert not failures


async def connect(runtime, server, address, user="", password="") -> End:
    end = End()
    await runtime.connect(address, lambda: end, proxy=Proxy(server.address, user, password))
    return end


async def echo(reader, writer) -> None:
    writer.write(await reader.read(100))
    writer.close()


async def test_bytes_go_through_it_both_ways(runtime):
    far = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = far.sockets[0].getsockname()[1]
    async with SocksServer(target=f"127.0.0.1:{port}") as server:
        end = await connect(runtime, server, f"{ONION}:9735", "alice", "secret")
        end.transport.write(b"hello")
        assert await end.heard.get() == b"hello"
        assert server.asked == [Asked("alice", "secret", 3, ONION, 9735)]
        end.transport.abort()
    far.close()


@pytest.mark.parametrize(
    ("address", "kind", "host"),
    [
        ("node.invalid:1", 3, "node.invalid"),  # nothing here could resolve it
        ("1.2.3.4:1", 1, "01020304"),
        ("[2001:db8::1]:1", 4, "20010db8000000000000000000000001"),
        ("bücher.invalid:1", 3, "xn--bcher-kva.invalid"),
    ],
)
async def test_the_proxy_resolves_names(runtime, address, kind, host):
    async with SocksServer() as server:
        end = await connect(runtime, server, address)
        assert server.asked == [Asked("", "", kind, host, 1)]
        end.transport.abort()


@pytest.mark.parametrize("code", REASONS)
async def test_every_error_is_told_in_words(runtime, code):
    async with SocksServer(reply(code)) as server:
        with pytest.raises(ConnectionRefusedError) as refused:
            await connect(runtime, server, f"{ONION}:9735")
        assert str(refused.value) == f"the proxy at {server.address}: {REASONS[code]}"


@pytest.mark.parametrize("code", [0x09, 0x7F, 0xEF, 0xF8, 0xFF])
async def test_an_error_that_nobody_knows_is_told_by_its_number(runtime, code):
    async with SocksServer(reply(code)) as server:
        with pytest.raises(ConnectionRefusedError, match=f"error 0x{code:02x}"):
            await connect(runtime, server, f"{ONION}:9735")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x04\x5a" + bytes(6),  # SOCKS4
        b"\x05\x00\x09\x01" + bytes(6),  # a reserved byte that is used
        b"\x05\x00\x00\x07" + bytes(6),  # an address of no kind
        b"\x05\x00\x00\x03\x02\xff\xfe\x00\x00",  # a name that is no text
    ],
)
async def test_garbage_is_refused_and_the_connection_closed(runtime, answer):
    async with SocksServer(answer) as server:
        with pytest.raises((ConnectionRefusedError, Refused), match="SOCKS"):
            await connect(runtime, server, f"{ONION}:9735")
        await asyncio.wait_for(server.closed.wait(), 3)


@pytest.mark.parametrize("method", [b"\x05\xff", b"\x05\x01", b"\x05\x77", b"\x04\x00", b"GE"])
async def test_a_proxy_that_wants_another_greeting_is_refused(runtime, method):
    async with SocksServer() as server:
        server.method = method
        with pytest.raises(ConnectionRefusedError, match="speaks no SOCKS5 with us"):
            await connect(runtime, server, f"{ONION}:9735", "alice", "secret")


async def test_a_proxy_that_refuses_the_user_says_so(runtime):
    async with SocksServer() as server:
        server.auth = b"\x01\x01"
        with pytest.raises(ConnectionRefusedError, match="password"):
            await connect(runtime, server, f"{ONION}:9735", "alice", "secret")


@pytest.mark.parametrize("answer", [b"", b"\x05", GRANTED[:7]])
async def test_a_proxy_that_closes_is_an_answer(runtime, answer):
    async with SocksServer(answer) as server:
        server.hang_up = True
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            await connect(runtime, server, f"{ONION}:9735")


@pytest.mark.parametrize("answer", [b"", b"\x05\x00\x00"])
async def test_a_proxy_that_hangs_is_left_by_the_clock_and_nothing_stays_open(runtime, answer):
    async with SocksServer(answer) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT_S):
                await connect(runtime, server, f"{ONION}:9735")
        await asyncio.wait_for(server.closed.wait(), 3)


async def test_no_proxy_there_is_told_with_its_address(runtime):
    async with SocksServer() as server:
        pass
    with pytest.raises(ConnectionRefusedError, match=f"no SOCKS proxy answers at {server.address}"):
        await connect(runtime, server, f"{ONION}:9735")


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".invalid", ".".join(["abcdefghi"] * 30)])
async def test_what_is_no_host_name_is_refused(runtime, host):
    async with SocksServer() as server:
        with pytest.raises(Refused, match="no host name"):
            await connect(runtime, server, f"{host}:1")
