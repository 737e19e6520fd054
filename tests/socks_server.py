"""A SOCKS5 proxy that does as the test says, and writes down what it was asked for."""

import asyncio
from contextlib import suppress
from typing import NamedTuple

GRANTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def reply(code: int) -> bytes:
    return bytes((5, code)) + GRANTED[2:]


class Asked(NamedTuple):
    user: str
    password: str
    kind: int  # of address: 1 IPv4, 3 name, 4 IPv6
    host: str
    port: int


class SocksServer:
    """`answer` is written to each request; with GRANTED, `target` is where its bytes then go (or nowhere)."""

    def __init__(self, answer: bytes = GRANTED, target: str = "") -> None:
        self.answer, self.target = answer, target
        self.method: bytes | None = None  # instead of an answer to the greeting
        self.auth = b"\x01\x00"
        self.hang_up = False
        self.asked: list[Asked] = []
        self.closed = asyncio.Event()  # a client has gone
        self._tasks: set[asyncio.Task] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # the end of a test
            await self._talk(reader, writer)
        self.closed.set()
        writer.close()

    async def _talk(self, reader, writer):
        user = password = ""
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = self.method or (b"\x05\x02" if 2 in methods else b"\x05\x00")
        writer.write(method)
        if method == b"\x05\x02":
            _, size = await reader.readexactly(2)
            user = (await reader.readexactly(size)).decode()
            (size,) = await reader.readexactly(1)
            password = (await reader.readexactly(size)).decode()
            writer.write(self.auth)
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = await reader.readexactly(size)
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(Asked(user, password, kind, host.decode() if kind == 3 else host.hex(), port))
        writer.write(self.answer)
        if self.hang_up:
            return
        if self.answer != GRANTED or not self.target:
            await reader.read()
            return
        far_reader, far_writer = await asyncio.open_connection(*self.target.split(":"))
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()


async def pump(reader, writer):
    while data := await reader.read(4_096):
        writer.write(data)
    writer.close()
