"""Small graphs, signed with keys made from a seed."""

from collections.abc import Sequence
from struct import pack

import pytest

from lnsim.graph_generator import REGTEST, generate
from node.crypto.hashes import hash256, sha256
from node.crypto.keys import public_key, sign
from node.gossip.graph import Delta, Graph

NOW_S = 1_770_076_800


class Pen:
    """Writes gossip messages, signed or with faults."""

    now_s = NOW_S

    def secret(self, name: str) -> bytes:
        return sha256(name.encode())

    def node(self, name: str) -> bytes:
        return public_key(self.secret(name))

    def ordered(self, a: str, b: str) -> tuple[str, str]:
        return (a, b) if self.node(a) < self.node(b) else (b, a)

    def channel(
        self, scid: int, a: str, b: str, *, chain: bytes = REGTEST, forger: int = -1, features: bytes = b""
    ) -> bytes:
        names = (*self.ordered(a, b), f"{scid} 1", f"{scid} 2")
        body = pack(">H", len(features)) + features + chain + pack(">Q", scid)
        body += b"".join(self.node(name) for name in names)
        signers = ["forger" if index == forger else name for index, name in enumerate(names)]
        return pack(">H", 256) + self.signatures(signers, body) + body

    def update(
        self,
        scid: int,
        signer: str,
        direction: int,
        *,
        timestamp: int = NOW_S,
        chain: bytes = REGTEST,
        message_flags: int = 1,
        disabled: bool = False,
        base_msat: int = 1000,
        ppm: int = 100,
        delta: int = 40,
        minimum_msat: int = 1,
        maximum_msat: int = 10**9,
        extra: bytes = b"",
    ) -> bytes:
        flags = direction | disabled << 1
        fields = (chain, scid, timestamp, message_flags, flags, delta)
        body = pack(">32sQIBBHQIIQ", *fields, minimum_msat, base_msat, ppm, maximum_msat) + extra
        return pack(">H", 258) + self.signatures([signer], body) + body

    def announce(
        self,
        name: str,
        *,
        timestamp: int = NOW_S,
        addresses: bytes = b"",
        signer: str = "",
        extra: bytes = b"",
    ) -> bytes:
        body = pack(">HI", 0, timestamp) + self.node(name) + bytes(3) + name.encode().ljust(32, b"\0")
        body += pack(">H", len(addresses)) + addresses + extra
        return pack(">H", 257) + self.signatures([signer or name], body) + body

    def signatures(self, names: Sequence[str], body: bytes) -> bytes:
        return b"".join(sign(self.secret(name), hash256(body)) for name in names)


@pytest.fixture
def pen() -> Pen:
    return Pen()


@pytest.fixture(scope="session")
def deltas() -> list[Delta]:
    return list(generate(7, channels=120, nodes=40))


@pytest.fixture
def graph(deltas: list[Delta]) -> Graph:
    filled = Graph(REGTEST)
    for delta in deltas:
        filled.apply(delta)
    return filled
