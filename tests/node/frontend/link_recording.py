"""A conversation over the link, recorded: so that a side of today can hold it with the bytes of the other side of then.

Two peers come, gossip, ask for a channel, are dialled, drained and let go. `record_link.py` writes it down.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, msgpack
from noise_client import GraphTime, NoiseClient

from lnsim.cluster import wait_until
from lnsim.graph_generator import REGTEST, generate, message_of
from node.backend.identity import FEATURES
from node.crypto.hashes import sha256
from node.crypto.keys import public_key
from node.frontend.frontend import Frontend
from node.link import frames
from node.wire import bolt1, bolt2
from node.wire.codec import encode, message_type

UP, DOWN, STEP = "up", "down", "step"
ALICE, BOB = "alice", "bob"
BOBS_DOOR = "unix:bob.sock"  # relative: a recorded Dial names it, wherever the test runs
PATIENCE_S = 10.0  # only a failing test waits for so long
BY_THE_CLOCK = frozenset(("beat", "status", "acks", "shares"))  # when and how many is nobody's promise
ANCHORS = bytes.fromhex("401000")
CHANNELS = 3

Key = tuple[object, ...]


class StillRuntime(GraphTime):
    """Keys and session numbers are the same in every run, so that recorded handshakes fit."""

    def entropy(self, size: int) -> bytes:
        return (sha256(b"entropy of the recording") * (size // 32 + 1))[:size]


class Recording(Struct, frozen=True):
    """What went over a link: ("up" or "down", a frame in hex), or ("step", what was done)."""

    source: str
    protocol: int
    understood: dict[str, tuple[str, ...]]  # by direction, the tags that were known then
    events: tuple[tuple[str, str], ...]


def key_of(frame: bytes) -> Key:
    """What a frame is about; read without the classes of today."""
    kind, body = frame[4], frame[5:]
    if kind == frames.CONTROL:
        message = msgpack.decode(body)
        return kind, message["t"], message.get("session", message.get("dial"))
    if kind == frames.PEER:
        return kind, int.from_bytes(body[:8], "big"), message_type(body[16:])
    return (kind,)


def matters(key: Key) -> bool:
    return key[0] != frames.CONTROL or key[1] not in BY_THE_CLOCK


class FrameEnd(asyncio.Protocol):
    """One end of a connection, frame by frame."""

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        self._buffer, self._on_frame = b"", on_frame
        self.made, self.lost = asyncio.Event(), asyncio.Event()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4 and len(self._buffer) >= (
            end := 4 + int.from_bytes(self._buffer[:4], "big")
        ):
            frame, self._buffer = self._buffer[:end], self._buffer[end:]
            self._on_frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Then:
    """The side that is only a recording: says what it said, and waits for what it heard."""

    def __init__(self, recording: Recording, speaks: str) -> None:
        self._recording, self._speaks = recording, speaks
        self._heard: list[Key] = []
        self.frames: list[bytes] = []
        self.end = FrameEnd(self._hear)

    def _hear(self, frame: bytes) -> None:
        self.frames.append(frame)
        self._heard.append(key_of(frame))

    async def hold(self, steps: Mapping[str, Callable[[], Any]]) -> None:
        """The whole conversation. `steps` are done by today's side, or by its peers; the others are in the recording."""
        await asyncio.wait_for(self.end.made.wait(), PATIENCE_S)
        doing: list[asyncio.Task[Any]] = []  # a dial lasts into the next step
        for kind, what in self._recording.events:
            if kind == STEP:
                doing += [asyncio.ensure_future(steps[what]())] if what in steps else []
            elif kind == self._speaks:
                self.end.transport.write(bytes.fromhex(what))
            elif matters(key := key_of(bytes.fromhex(what))):
                await until(lambda key=key: key in self._heard, f"{key} among {self._heard[-9:]}")
                self._heard.remove(key)
        await asyncio.gather(*doing)

    @property
    def tags(self) -> set[str]:
        """Of the control messages that came."""
        return {msgpack.decode(frame[5:])["t"] for frame in self.frames if frame[4] == frames.CONTROL}


class Peers:
    """The two peers of the conversation; what they do are its steps."""

    def __init__(self, runtime: StillRuntime, node_id: bytes, frontend: Frontend) -> None:
        self._runtime, self._frontend = runtime, frontend
        self.alice, self.bob = NoiseClient(ALICE, node_id), NoiseClient(BOB, None)
        self._door: Any = None

    async def start(self) -> None:
        self._door = await self._runtime.listen(BOBS_DOOR, lambda: self.bob)

    def stop(self) -> None:
        self._door.close()
        for peer in (self.alice, self.bob):
            peer.close()

    @property
    def steps(self) -> dict[str, Callable[[], Any]]:
        done = (self.alice_comes, self.alice_gossips, self.alice_opens, self.bob_answers, self.bob_leaves)
        return {step.__name__: step for step in done}

    async def alice_comes(self) -> None:
        await asyncio.wait_for(self._frontend.listening.wait(), PATIENCE_S)
        await self._runtime.connect(self._frontend.address, lambda: self.alice)
        await self._init(self.alice)

    async def alice_gossips(self) -> None:
        """One after the other: each is judged by what came before."""
        graph = self._frontend.gossip.graph
        for delta in generate(7, channels=CHANNELS, nodes=2):
            before = graph.sequence
            self.alice.send(message_of(delta))
            await until(lambda before=before: graph.sequence > before, "the graph grows")

    async def alice_opens(self) -> None:
        self.alice.send(OPEN)
        await self.alice.of_type(bolt2.AcceptChannel.number)

    async def bob_answers(self) -> None:
        await self._init(self.bob)

    async def bob_leaves(self) -> None:
        self.bob.close()

    async def _init(self, peer: NoiseClient) -> None:
        await peer.established()
        peer.send(encode(bolt1.Init(b"", FEATURES.to_bytes(), networks=REGTEST)))
        await peer.of_type(bolt1.Init.number)


async def until(found: Callable[[], object], what: str) -> None:
    async def true() -> bool:
        return bool(found())

    await wait_until(true, PATIENCE_S, what, pause_s=0.002)


POINTS = [
    f"{name}_{kind}"
    for name, kind in (
        ("funding", "pubkey"),
        ("revocation", "basepoint"),
        ("payment", "basepoint"),
        ("delayed_payment", "basepoint"),
        ("htlc", "basepoint"),
        ("first_per_commitment", "point"),
    )
]
OPEN = encode(
    bolt2.OpenChannel(
        chain_hash=REGTEST,
        temporary_channel_id=sha256(b"channel"),
        funding_satoshis=1_000_000,
        push_msat=0,
        dust_limit_satoshis=354,
        max_htlc_value_in_flight_msat=500_000_000,
        channel_reserve_satoshis=10_000,
        htlc_minimum_msat=1,
        feerate_per_kw=2_500,
        to_self_delay=144,
        max_accepted_htlcs=30,
        channel_flags=0,
        channel_type=ANCHORS,
        **{name: public_key(sha256(name.encode())) for name in POINTS},
    )
)
