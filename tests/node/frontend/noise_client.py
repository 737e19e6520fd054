"""A peer on a real socket: BOLT 8, then whatever the test wants said; and the frontend that it talks to."""

import asyncio
from typing import Any

from scripted_backend import FEATURES, PATIENCE_S, Heard, ScriptedBackend

from lnsim.graph_generator import REGTEST, TIMESTAMP
from node.crypto.hashes import sha256
from node.crypto.keys import public_key
from node.frontend.frontend import Frontend
from node.link.messages import SessionReady
from node.peer.connection import NoiseConnection
from node.peer.handshake import Initiator, Responder
from node.runtime.addresses import split_address
from node.runtime.config import FrontendConfig
from node.runtime.runtime import SystemRuntime
from node.wire import bolt1
from node.wire.codec import decode, encode, message_type

INIT = encode(bolt1.Init(b"", FEATURES.to_bytes(), networks=REGTEST))


class GraphTime(SystemRuntime):
    """The real world, at the time at which the generated graphs were new."""

    def now(self) -> float:
        return TIMESTAMP


class NoiseClient(asyncio.Protocol):
    """`heard` holds raw messages, and "closed" at the end; `raw` bytes may be sent at any time."""

    def __init__(self, name: str, responder_id: bytes | None) -> None:
        self.secret = sha256(name.encode())
        self.node_id = public_key(self.secret)
        ephemeral = sha256(b"ephemeral " + name.encode())
        self.noise = NoiseConnection(
            Initiator(self.secret, ephemeral, responder_id)
            if responder_id
            else Responder(self.secret, ephemeral)
        )
        self.heard = Heard()
        self.transport: asyncio.Transport | None = None
        self.arrived = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.arrived.set()
        self._flush()

    def data_received(self, data: bytes) -> None:
        for raw in self.noise.receive(data):
            self.heard.add(raw)
        self._flush()
        if self.noise.established:
            self.heard.add("established")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.add("closed")

    def send(self, *raws: bytes) -> None:
        self.noise.send(raws)
        self._flush()

    def _flush(self) -> None:
        assert self.transport is not None
        self.transport.write(self.noise.data_to_send())

    async def established(self) -> None:
        await self.heard.until(lambda: self.noise.established)

    async def closed(self) -> None:
        await self.heard.until(lambda: "closed" in self.heard)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    @property
    def messages(self) -> list[bytes]:
        return self.heard.of(bytes)

    async def gets(self, raw: bytes) -> None:
        await self.heard.until(lambda: raw in self.messages)

    async def of_type(self, number: int, count: int = 1) -> list[bytes]:
        def found() -> list[bytes]:
            raws = [raw for raw in self.messages if message_type(raw) == number]
            return raws if len(raws) >= count else []

        return await self.heard.until(found)

    async def warning(self) -> str:
        """The text of the first warning that it gets."""
        (raw, *_) = await self.of_type(bolt1.Warning.number)
        message = decode(raw)
        assert isinstance(message, bolt1.Warning)
        return message.data.decode()

    async def pinged(self) -> None:
        """A ping goes there and its pong comes back: everything sent before has been dealt with."""
        before = sum(message_type(raw) == bolt1.Pong.number for raw in self.messages)
        self.send(encode(bolt1.Ping(1, b"")))
        await self.of_type(bolt1.Pong.number, before + 1)


class Site:
    """A backend that follows a script, a real frontend on real sockets, and peers."""

    def __init__(self, path: str) -> None:
        self.failures: list[BaseException] = []
        self.runtime = GraphTime(lambda _, error: self.failures.append(error))
        self.backend = ScriptedBackend(self.runtime, path)
        self.frontend: Frontend | None = None
        self.clients: list[NoiseClient] = []

    async def start(self, **config: Any) -> Frontend:
        """Backend and frontend; the port is not necessarily open yet."""
        await self.backend.start()
        values = {"listen": "127.0.0.1:0", "backend": self.backend.address, "reconnect_s": 0.01}
        self.frontend = Frontend(self.runtime, FrontendConfig(**values | config), "f1", "test")
        await self.frontend.start()
        return self.frontend

    async def open(self, **config: Any) -> Frontend:
        frontend = await self.start(**config)
        await self.listening()
        return frontend

    async def listening(self) -> None:
        assert self.frontend is not None
        await asyncio.wait_for(self.frontend.listening.wait(), PATIENCE_S)

    async def stop(self) -> None:
        if self.frontend is not None:
            await self.frontend.stop()
        self.backend.stop()
        for client in self.clients:
            client.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def connect(self, name: str) -> NoiseClient:
        """A socket to the frontend with act one on its way."""
        assert self.frontend is not None
        client = NoiseClient(name, self.backend.node_id)
        self.clients.append(client)
        await self.runtime.connect(self.frontend.address, lambda: client)
        return client

    async def peer(self, name: str, init: bytes = INIT) -> tuple[NoiseClient, SessionReady]:
        """A peer whose init has been exchanged, and its session as the backend heard of it."""
        before = len(self.backend.heard.of(SessionReady))
        client = await self.connect(name)
        await client.established()
        client.send(init)
        ready = (await self.backend.ready(before + 1))[before]
        await client.of_type(bolt1.Init.number)
        return client, ready

    async def refuses(self, address: str) -> bool:
        """Whether nobody listens there."""
        _, host, port = split_address(address)
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return True
        writer.close()
        return False
