"""A backend that does as the test says: it speaks the link, runs BOLT 8, and writes down all that it hears."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from lnsim.graph_generator import REGTEST
from node.crypto.keys import public_key
from node.gossip.graph import Delta
from node.link import frames
from node.link.graph_records import encode_delta
from node.link.messages import (
    Acks,
    Act,
    Adopted,
    Control,
    Dial,
    Dialling,
    Established,
    GraphCurrent,
    GraphWanted,
    HandshakeRefused,
    HandshakeStarted,
    HeldSession,
    Hello,
    Limits,
    Present,
    SessionEnded,
    SessionReady,
    Verdicts,
    Welcome,
)
from node.peer.handshake import HandshakeFailed, Initiator, Responder
from node.runtime.runtime import Listener, SystemRuntime
from node.wire.features import Feature, Features

FEATURES = Features.of(
    optional=(Feature.OPTION_DATA_LOSS_PROTECT, Feature.GOSSIP_QUERIES, Feature.GOSSIP_QUERIES_EX)
)
PATIENCE_S = 3.0  # only a failing test waits for so long
T = TypeVar("T")


class PeerFrame(NamedTuple):
    session: int
    sequence: int
    raw: bytes


class OfferFrame(NamedTuple):
    number: int
    session: int
    raw: bytes


class Heard(list[Any]):
    """What came in, in order; a test waits until it holds what the test is about."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def add(self, item: object) -> None:
        self.append(item)
        self._changed.set()

    async def until(self, found: Callable[[], T]) -> T:
        """Wait for `found` to return something; it is asked again whenever something was heard."""
        async with asyncio.timeout(PATIENCE_S):
            while not (answer := found()):
                self._changed.clear()
                await self._changed.wait()
        return answer

    def of(self, kind: type[T]) -> list[T]:
        return [item for item in self if isinstance(item, kind)]

    async def first(self, kind: type[T], count: int = 1) -> list[T]:
        """The items of a kind, once there are so many."""
        return await self.until(lambda: found if len(found := self.of(kind)) >= count else [])


class ScriptedBackend(asyncio.Protocol):
    """One frontend at a time. What it does by itself can be turned off."""

    def __init__(self, runtime: SystemRuntime, path: str) -> None:
        self._runtime = runtime
        self.address = f"unix:{path}"
        self.secret = b"\x11" * 32
        self.node_id = public_key(self.secret)
        self.frontend_handshakes = False
        self.limits = Limits()
        self.dialling = Dialling()
        self.epoch = 1
        self.protocol = 2
        self.graph: list[Delta] = []
        self.sequence = 0
        self.welcomes: Control | None = None  # what to answer to a Hello instead of a Welcome
        self.welcoming = self.feeding = self.acking = self.shaking = self.adopting = True
        self.heard = Heard()
        self.transport: asyncio.Transport | None = None
        self._handshakes: dict[int, Responder | Initiator] = {}
        self._dials: dict[int, Initiator] = {}
        self._sent: dict[int, int] = {}
        self._reader = frames.FrameReader()
        self._listener: Listener | None = None

    async def start(self) -> None:
        self._listener = await self._runtime.listen(self.address, lambda: self)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.hang_up()

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._reader = frames.FrameReader()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.heard.add("lost")

    def data_received(self, data: bytes) -> None:
        for kind, body in self._reader.receive(data):
            if kind == frames.PEER:
                frame = PeerFrame(*frames.split_peer(body))
                if self.acking:
                    self.ack(frame.session, frame.sequence)
                self.heard.add(frame)
            elif kind == frames.OFFER:
                self.heard.add(OfferFrame(*frames.split_offer(body)))
            else:
                message = frames.decode_to_backend(body)
                self._control(message)
                self.heard.add(message)

    def _control(self, message: Control) -> None:
        match message:
            case Hello() if self.welcoming:
                self.send(self.welcomes or self.welcome())
            case GraphWanted(after) if self.feeding:
                self.feed(after)
            case Present(sessions) if self.adopting:
                self.adopt(*sessions)
            case HandshakeStarted(session, _, act) if self.shaking:
                self._handshakes[session] = Responder(self.secret, self._runtime.entropy(32))
                self._shake(session, act)
            case Act(session, act, dial) if self.shaking:
                if dial in self._dials:
                    self._handshakes[session] = self._dials.pop(dial)
                self._shake(session, act)

    def _shake(self, session: int, act: bytes) -> None:
        handshake = self._handshakes[session]
        try:
            reply = handshake.receive(act)
        except HandshakeFailed as error:
            self.send(HandshakeRefused(session, error.cause))
            return
        if (result := handshake.result) is None:
            self.send(Act(session, reply))
        else:
            keys = (result.send_key, result.receive_key, result.chaining_key)
            self.send(Established(session, result.remote_static, *keys, act=reply))

    # what a test has it say

    def adopt(self, *sessions: HeldSession) -> None:
        """All of them, as if everything that was not acknowledged had been lost."""
        self._sent |= {held.number: held.received for held in sessions}
        if sessions:
            self.send(Adopted(tuple((held.number, held.acked) for held in sessions)))

    def send(self, *messages: Control) -> None:
        self.write(b"".join(map(frames.control, messages)))

    def write(self, data: bytes) -> None:
        assert self.transport is not None, "no frontend is here"
        self.transport.write(data)

    def welcome(self) -> Welcome:
        chain, features = REGTEST, FEATURES.to_bytes()
        return Welcome(
            self.protocol,
            self.epoch,
            self.node_id,
            chain,
            features,
            self.sequence,
            limits=self.limits,
            frontend_handshakes=self.frontend_handshakes,
            dialling=self.dialling,
        )

    def feed(self, after: int = -1) -> None:
        """The whole graph, or what came after."""
        if after < 0:
            if self.graph:
                self.write(frames.graph(0, b"".join(map(encode_delta, self.graph))))
            self.send(GraphCurrent(self.sequence))
        else:
            self.send(GraphCurrent(after))
            missing = self.graph[len(self.graph) - (self.sequence - after) :]
            if missing:
                self.write(frames.graph(after + 1, b"".join(map(encode_delta, missing))))

    def knows(self, deltas: Iterable[Delta]) -> None:
        """Before a frontend comes: this is the graph."""
        self.graph = list(deltas)
        self.sequence = len(self.graph)

    def change(self, *deltas: Delta) -> None:
        """The graph has changed, and the frontend hears of it."""
        self.write(frames.graph(self.sequence + 1, b"".join(map(encode_delta, deltas))))
        self.graph += deltas
        self.sequence += len(deltas)

    def ack(self, session: int, sequence: int) -> None:
        self.send(Acks(((session, sequence),)))

    def message(self, session: int, *raws: bytes) -> None:
        """For the peer of this session."""
        for raw in raws:
            self._sent[session] = self._sent.get(session, 0) + 1
            self.write(frames.peer(session, self._sent[session], raw))

    def verdict(self, offer: int, verdict: int) -> None:
        self.send(Verdicts(((offer, verdict),)))

    def dial(self, number: int, node_id: bytes, address: str, timeout_s: float = PATIENCE_S) -> None:
        initiator = Initiator(self.secret, self._runtime.entropy(32), node_id)
        self._dials[number] = initiator
        self.send(Dial(number, node_id, address, initiator.act_one(), timeout_s))

    # what a test waits for

    async def ready(self, count: int = 1) -> list[SessionReady]:
        return await self.heard.first(SessionReady, count)

    async def ended(self, session: int) -> str:
        """Why this session ended, once it has."""
        found = await self.heard.until(
            lambda: [end for end in self.heard.of(SessionEnded) if end.session == session]
        )
        return found[0].cause

    async def messages(self, session: int, count: int = 1) -> list[PeerFrame]:
        def found() -> list[PeerFrame]:
            frames_ = [frame for frame in self.heard.of(PeerFrame) if frame.session == session]
            return frames_ if len(frames_) >= count else []

        return await self.heard.until(found)
