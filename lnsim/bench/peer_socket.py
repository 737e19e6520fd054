"""A peer's end of a TCP connection to a frontend: BOLT 8 and init, then raw bytes either way."""

import asyncio
import secrets

from node.peer.connection import NoiseConnection
from node.peer.handshake import Initiator
from node.wire import bolt1
from node.wire.bolt7 import GossipTimestampFilter
from node.wire.codec import encode, message_type

READ_BYTES = 1 << 20
EVER = 0xFFFF_FFFF


class PeerSocket:
    """One session, past its init."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noise: NoiseConnection
    ) -> None:
        self.reader = reader
        self.noise = noise
        self._writer = writer

    def send(self, message: bytes) -> None:
        self.noise.send([message])
        self._writer.write(self.noise.data_to_send())

    def close(self) -> None:
        self._writer.close()


async def connect(address: str, node_id: bytes, chain_hash: bytes, features: bytes) -> PeerSocket:
    """Dial, shake hands and exchange init messages."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=READ_BYTES)
    noise = NoiseConnection(Initiator(secrets.token_bytes(32), secrets.token_bytes(32), node_id))
    writer.write(noise.data_to_send())
    messages: list[bytes] = []
    while not noise.established:
        messages += noise.receive(await _read(reader))
        writer.write(noise.data_to_send())
    peer = PeerSocket(reader, writer, noise)
    peer.send(encode(bolt1.Init(b"", features, networks=chain_hash)))
    while not messages:
        messages += noise.receive(await _read(reader))
    assert message_type(messages[0]) == bolt1.Init.number
    return peer


def gossip_wanted(chain_hash: bytes, first_timestamp: int) -> bytes:
    """A gossip_timestamp_filter for everything from then on."""
    return encode(GossipTimestampFilter(chain_hash, first_timestamp, EVER))


async def _read(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(READ_BYTES)
    if not data:
        raise ConnectionError("the frontend closed the connection")
    return data
