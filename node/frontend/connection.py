"""One peer's connection: a socket, the transport behind its handshake, and a session. No key, no channel, no state
that is missed when this process is killed.

Reads only while everyone downstream keeps up: no credit left for the backend, or too many announcements without a
verdict, and the socket is not read until that changes.
"""

import asyncio
import ipaddress
from collections import deque
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from typing import Protocol, cast

from node.errors import MalformedMessage, PeerFault
from node.frontend.admission import GossipBudget
from node.link.flow import ReceiveWindow, SendWindow
from node.link.messages import Established, HeldSession, Limits
from node.peer.connection import ActBuffer
from node.peer.handshake import ACT_ONE_SIZE, ACT_THREE_SIZE, ACT_TWO_SIZE, HandshakeFailed, HandshakeResult
from node.peer.notice import warning
from node.peer.routing import Route
from node.peer.session import Session, SessionRules
from node.peer.transport import Transport
from node.runtime.addresses import join_address
from node.runtime.runtime import Runtime
from node.wire.bolt1 import Init
from node.wire.codec import encode

MAX_UNANSWERED = 500  # announcements of one peer that wait for a verdict; then it is not read
MAX_QUEUED_QUERIES = 20  # of one peer; honest ones send one at a time, and a filter
BACKLOG_SLICE = 1_000  # messages encrypted together while a backlog is served
WRITE_HIGH_BYTES = 256 * 1024
GOODBYE_S = 5.0  # for a peer to read what was written before the close


class Hold(Enum):
    """Why a socket is not read."""

    CREDIT = 1
    VERDICTS = 2
    QUERIES = 3


class Uplink(Protocol):
    """What a connection needs of the backend."""

    @property
    def is_up(self) -> bool: ...

    def ready(self, connection: "PeerConnection", init: bytes) -> None: ...
    def message(self, connection: "PeerConnection", raw: bytes) -> None: ...
    def sent(self, connection: "PeerConnection") -> None: ...


class Acts(Protocol):
    """Who runs handshakes: the backend, or this frontend where it has the key."""

    def handshake_started(self, connection: "PeerConnection", act: bytes) -> None: ...
    def act(self, connection: "PeerConnection", act: bytes) -> None: ...


class Gossip(Protocol):
    """Who deals with BOLT 7."""

    def receive(self, connection: "PeerConnection", raw: bytes) -> None: ...


class House(Protocol):
    """The frontend that a connection belongs to."""

    runtime: Runtime
    rules: SessionRules
    limits: Limits
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int

    @property
    def uplink(self) -> Uplink: ...

    @property
    def gossip(self) -> Gossip: ...

    @property
    def acts(self) -> Acts: ...

    @property
    def budget(self) -> GossipBudget: ...

    def opened(self, connection: "PeerConnection") -> str:
        """One word for why there is no room for it, or nothing."""
        ...

    def shaken(self, connection: "PeerConnection") -> None:
        """Its handshake is through."""
        ...

    def closed(self, connection: "PeerConnection", cause: str) -> None: ...

    def next_number(self) -> int: ...


class PeerConnection(asyncio.Protocol):
    __slots__ = (
        "_acts",
        "_backlog",
        "_holds",
        "_house",
        "_out",
        "_socket",
        "_transport",
        "_waiting_for_backend",
        "_wanted",
        "_writable",
        "address",
        "dial",
        "ended",
        "node_id",
        "number",
        "queries",
        "receive_window",
        "send_window",
        "session",
        "since_s",
        "starved",
        "suspended",
        "unanswered",
    )

    def __init__(
        self, house: House, *, dial: int | None = None, first_act: bytes = b"", address: str = ""
    ) -> None:
        self._house = house
        self.number = house.next_number()
        self.dial = dial
        self.address = address
        self.since_s = house.runtime.monotonic()
        self.node_id = b""
        self.session: Session | None = None
        self.send_window = SendWindow(house.limits.session_window_bytes)
        self.receive_window = ReceiveWindow()
        self.unanswered = 0
        self.starved = False  # it has had more gossip than its share: what is due waits
        self.queries = 0.0  # allowance used up, see `frontend.gossip`
        self.ended = False
        self.suspended = False  # the backend is away, or has not adopted it yet: what is for it waits
        self._acts: ActBuffer | None = ActBuffer()
        self._wanted = ACT_ONE_SIZE if dial is None else ACT_TWO_SIZE
        self._waiting_for_backend = False
        self._transport: Transport | None = None
        self._socket: asyncio.Transport | None = None
        self._out: list[bytes] = [first_act] if first_act else []
        self._backlog: deque[Iterator[bytes]] | None = None
        self._holds: set[Hold] | None = None
        self._writable = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's subclasses
        transport = cast(asyncio.Transport, transport)
        self._socket = transport
        peername = transport.get_extra_info("peername")
        if not self.address and isinstance(peername, tuple):
            self.address = join_address(str(peername[0]), int(peername[1]))
        self._socket.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        if cause := self._house.opened(self):
            self.close(cause)
        elif self._out:
            self._socket.write(self._out.pop())

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        self._house.bytes_in += len(data)
        try:
            if self._transport is None:
                self._handshake(data)
            else:
                self._messages(self._transport.receive(data))
        except HandshakeFailed as error:
            self.close(error.cause)
        except (MalformedMessage, PeerFault) as error:
            self.close(getattr(error, "cause", "malformed"), warning(str(error)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket = None
        self.close("connection lost")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._house.uplink.sent(self)
        self.pump()

    # the handshake: its acts are the backend's

    def _handshake(self, data: bytes) -> None:
        assert self._acts is not None
        self._acts.receive(data)
        if self._waiting_for_backend or not self._house.uplink.is_up:
            return
        act = self._acts.take(self._wanted)
        if act is None:
            return
        self._waiting_for_backend = True
        if self._wanted == ACT_ONE_SIZE and self.dial is None:
            self._house.acts.handshake_started(self, act)
        else:
            self._house.acts.act(self, act)

    def act(self, act: bytes) -> None:
        """The backend's act two; act three comes next."""
        if self._socket is None or self._acts is None:
            return
        self._socket.write(act)
        self._wanted = ACT_THREE_SIZE
        self._waiting_for_backend = False
        self.data_received(b"")  # act three may be here already

    def established(self, message: Established) -> None:
        """The handshake ran; init follows at once."""
        if self._socket is None or self._acts is None:
            return
        house = self._house
        self.node_id = message.node_id
        keys = (message.send_key, message.receive_key, message.chaining_key)
        self._transport = Transport(HandshakeResult(message.node_id, *keys))
        if message.act:
            self._socket.write(message.act)
        spread = house.runtime.random.random()
        seen = _descriptor(self.address) if self.dial is None else None
        self.session = Session(house.rules, house.runtime.monotonic(), spread, seen)
        self.send(self.session.messages_to_send())
        house.shaken(self)
        rest, self._acts = self._acts.rest(), None
        if rest:
            self.data_received(rest)

    # while the backend is away

    def suspend(self) -> None:
        """The backend is away: go on with what a frontend can do alone. What only that backend knew of ends."""
        if self.ready:
            self.suspended = True
        elif self.session is not None or self._waiting_for_backend or self._wanted != ACT_ONE_SIZE:
            self.close("backend lost")

    def wake(self) -> None:
        """A backend is here: the act that waited for it may go."""
        if self._transport is None and not self.ended:
            self.data_received(b"")

    def held(self) -> HeldSession:
        """What the next backend has to know of it."""
        assert self.session is not None, "only a ready session is held"
        assert self.session.features is not None, "only a ready session is held"
        return HeldSession(
            number=self.number,
            node_id=self.node_id,
            init=encode(Init(b"", self.session.features.to_bytes())),
            address=self.address,
            sent=self.send_window.sequence,
            acked=self.send_window.acknowledged,
            received=self.receive_window.sequence,
            age_s=self._house.runtime.monotonic() - self.since_s,
            incoming=self.dial is None,
        )

    # messages

    def _messages(self, raws: list[bytes]) -> None:
        session, house = self.session, self._house
        assert session is not None
        now_s = house.runtime.monotonic()
        house.messages_in += len(raws)
        for raw in raws:
            if self.ended:
                return
            first = not session.ready
            where = session.receive(raw, now_s)
            if first:
                house.uplink.ready(self, raw)
            elif where is Route.BACKEND:
                self.forward(raw)
            elif where is Route.GOSSIP:
                house.gossip.receive(self, raw)
        self.send(session.messages_to_send())

    def forward(self, raw: bytes) -> None:
        """To the backend, within its credit: whoever decides that a message is the backend's comes through here."""
        self._house.uplink.message(self, raw)
        if self.send_window.exhausted:
            self.hold(Hold.CREDIT)

    def send(self, raws: list[bytes]) -> None:
        """Queue messages; those of one turn of the loop share a write."""
        if not raws or self._transport is None:
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self.flush)
        self._out += raws

    def flush(self) -> None:
        """Encrypt and write what is queued."""
        out, self._out = self._out, []
        if self._socket is None or self._transport is None or not out:
            return
        house = self._house
        data = self._transport.encrypt(out)
        house.messages_out += len(out)
        house.bytes_out += len(data)
        self._socket.write(data)
        if self._socket.get_write_buffer_size() > house.limits.max_write_buffer_bytes:
            self.close("slow reader")

    @property
    def writable(self) -> bool:
        return self._writable and self._socket is not None

    @property
    def ready(self) -> bool:
        """Whether init messages were exchanged: before that nothing else may be sent (BOLT 1)."""
        return self.session is not None and self.session.ready

    # backlogs: answers to queries, what a filter asks for

    def serve(self, messages: Iterator[bytes]) -> None:
        """Send these when the socket has room, after what was asked before."""
        if self._backlog is None:
            self._backlog = deque()
        if len(self._backlog) >= MAX_QUEUED_QUERIES:
            self.close("query flood", warning("too many queries at once"))
            return
        self._backlog.append(messages)
        if len(self._backlog) == 1:
            self.pump()

    def pump(self) -> None:
        """Go on with the backlog while the peer keeps up; one slice a turn, so that others get theirs."""
        if self._backlog is None or not self.writable:
            return
        house = self._house
        now_s = house.runtime.monotonic()
        self.starved = not house.budget.allows(self.node_id, now_s)
        if self.starved:  # the sweep goes on with it
            return
        slice_ = list(islice(self._backlog[0], BACKLOG_SLICE))
        house.budget.spend(self.node_id, sum(map(len, slice_)), now_s)
        if len(slice_) < BACKLOG_SLICE:
            self._backlog.popleft()
            if not self._backlog:
                self._backlog = None
        self._out += slice_
        self.flush()
        if self._backlog is not None:
            asyncio.get_running_loop().call_soon(self.pump)

    # reading on, or not

    def hold(self, why: Hold) -> None:
        if self._holds is None:
            self._holds = set()
            if self._socket is not None:
                self._socket.pause_reading()
        self._holds.add(why)

    def release(self, why: Hold) -> None:
        if self._holds is None:
            return
        self._holds.discard(why)
        if not self._holds:
            self._holds = None
            if self.session is not None:  # the silence was of our making
                self.session.last_received_s = self._house.runtime.monotonic()
            if self._socket is not None:
                self._socket.resume_reading()

    @property
    def unread(self) -> bool:
        """Whether it is not read, until somebody keeps up."""
        return self._holds is not None

    def asked(self) -> None:
        """One more announcement waits for its verdict."""
        self.unanswered += 1
        if self.unanswered >= MAX_UNANSWERED:
            self.hold(Hold.VERDICTS)

    def answered(self) -> None:
        self.unanswered -= 1
        if self.unanswered < MAX_UNANSWERED // 2:
            self.release(Hold.VERDICTS)

    # the end

    def check(self, now_s: float, pong_size: int) -> None:
        """Once a second: pings, timeouts."""
        if self.session is None:
            if now_s - self.since_s > self._house.limits.handshake_timeout_s:
                self.close("handshake timeout")
            return
        if self._holds is not None:
            return
        try:
            self.session.check(now_s, pong_size)
        except PeerFault as fault:
            self.close(getattr(fault, "cause", "timeout"), warning(str(fault)))
            return
        self.send(self.session.messages_to_send())

    def close(self, cause: str, message: bytes = b"") -> None:
        """End it, `message` first. Safe to call again."""
        if self.ended:
            return
        self.ended = True
        if message:
            self._out.append(message)
        self.flush()
        self._backlog = None
        if self._socket is not None:
            _end(self._socket)
        self._house.closed(self, cause)


def _end(socket: asyncio.Transport) -> None:
    """What is still to be written has a moment; a peer that does not read it would keep socket and memory for ever."""
    if socket.get_write_buffer_size() > WRITE_HIGH_BYTES:
        socket.abort()
        return
    socket.close()
    if socket.get_write_buffer_size():
        asyncio.get_running_loop().call_later(GOODBYE_S, socket.abort)


def _descriptor(address: str) -> bytes | None:
    """The peer's public address as a BOLT 7 descriptor for its init, or None where it is not public."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    if not ip.is_global:
        return None
    return bytes((1 if ip.version == 4 else 2,)) + ip.packed + int(port).to_bytes(2, "big")
