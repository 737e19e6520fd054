"""The frontend's end of the link: keeps it up, and turns the backend's frames into calls."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Protocol, assert_never, cast

from node.errors import MalformedMessage
from node.frontend.connection import Hold, PeerConnection
from node.gossip.graph import Delta
from node.link import frames
from node.link.beats import stalled_s
from node.link.graph_records import decode_deltas
from node.link.messages import (
    PRESENTING,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Acks,
    Act,
    Adopted,
    Beat,
    CloseSession,
    Control,
    Dial,
    DialFailed,
    Drain,
    Established,
    GraphCurrent,
    GraphWanted,
    HandshakeDone,
    HandshakeRefused,
    HandshakeStarted,
    Hello,
    Leaving,
    Rejected,
    SessionEnded,
    SessionReady,
    Shares,
    StartSync,
    Status,
    ToFrontend,
    Verdicts,
    Welcome,
)
from node.link.presenting import presented
from node.runtime import logs
from node.runtime.runtime import Runtime
from node.runtime.tls import Tls

CONNECT_TIMEOUT_S = 3.0  # a host that is gone does not even refuse
WELCOME_TIMEOUT_S = 3.0  # from the connection on; a backend that is there answers in milliseconds

log = logs.get("uplink")


class Tenant(Protocol):
    """The frontend, as the link sees it."""

    connections: dict[int, PeerConnection]

    def welcome(self, message: Welcome) -> None: ...
    def link_lost(self, *, hold: bool, silent: bool) -> None: ...
    def link_refused(self) -> None:
        """Somebody listens, and ends the link before the welcome."""
        ...

    def status(self) -> Status: ...
    def dial(self, message: Dial) -> None: ...
    def drain(self, over_s: float | None) -> None: ...
    def start_sync(self, connection: PeerConnection) -> None: ...
    def verdicts(self, verdicts: tuple[tuple[int, int], ...]) -> None: ...
    def shares(self, message: Shares) -> None: ...
    def graph_records(self, first_sequence: int, deltas: Iterable[Delta]) -> None: ...
    def graph_current(self, sequence: int) -> None: ...


class Uplink(asyncio.Protocol):
    """Mutable; one for the life of the frontend, over one connection after the other."""

    def __init__(self, runtime: Runtime, tenant: Tenant, frontend_id: str, version: str) -> None:
        self._runtime = runtime
        self._tenant = tenant
        self._id = frontend_id
        self._version = version
        self._transport: asyncio.Transport | None = None
        self._reader = frames.FrameReader()
        self._lost = asyncio.Event()
        self._acks: dict[int, int] = {}
        self._offer = 0
        self.highest_epoch = 0
        self.welcomed: Welcome | None = None
        self._hold = False
        self._silent = False  # how the link ended: nothing was heard any more
        self.rejected = ""
        self._refused = False
        self._tls: Tls | None = None
        self.addresses: tuple[str, ...] = ()
        self.capabilities: tuple[str, ...] = ()
        self.heard_s = 0.0
        self._beat_s = 0.0
        self._turned_away = False  # this connection ended with a reason
        self.welcomes = 0

    @property
    def queue_bytes(self) -> int:
        """What waits to be written to the backend."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def is_up(self) -> bool:
        """Whether a backend is here."""
        return self.welcomed is not None

    # keeping it up

    async def run(self, addresses: Sequence[str], pause_s: float, tls: Tls | None = None) -> None:
        """Connect, again and again: a frontend never ends because its backend is away.

        Of several addresses one leads; the others do not listen, or are not welcomed.
        """
        self._tls = tls
        away: set[str] = set()
        for address in cycle(addresses):
            self._lost.clear()
            self._reader = frames.FrameReader()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._runtime.connect(address, lambda: self, tls=tls)
            except (OSError, TimeoutError) as error:
                if address not in away:  # said once: it is tried again and again
                    log.warning("no_backend", address=address, error=str(error), again_s=pause_s)
                away.add(address)
            else:
                away.discard(address)
                await self._lost.wait()
            await asyncio.sleep(pause_s / len(addresses) * (0.5 + self._runtime.random.random()))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's subclasses
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self._silent = self._turned_away = False
        self.heard_s = self._beat_s = self._runtime.monotonic()
        hello = Hello(
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            frontend_id=self._id,
            version=self._version,
            highest_epoch=self.highest_epoch,
            capabilities=(*self.capabilities, "shares"),
            addresses=self.addresses,
        )
        self._control(hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._acks.clear()
        if self.welcomed is None and not self._turned_away and self._tls is not None:
            self._tenant.link_refused()
        if self.welcomed is None and not self.rejected and not self._refused:
            # over TLS 1.3 this is also how a frontend hears that its certificate is not believed
            self._refused = True  # said once: it is tried again and again
            log.warning("link_refused", error=str(exc or "closed before the welcome; see the backend's log"))
        if self.welcomed is not None:
            self.welcomed = None
            self._tenant.link_lost(hold=self._hold, silent=self._silent)
        self._lost.set()

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._runtime.monotonic()
        try:
            for kind, body in self._reader.receive(data):
                self._frame(kind, body)
        except MalformedMessage as error:
            log.error("link_malformed", error=str(error))
            self.abort()
        self._flush_acks()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def beat(self) -> None:
        """Once per interval: show that we live, and end a link that is silent."""
        if self._transport is None:
            return
        welcomed = self.welcomed
        patience_s = WELCOME_TIMEOUT_S if welcomed is None else welcomed.limits.beat_timeout_s
        now_s = self._runtime.monotonic()
        self.heard_s = min(now_s, self.heard_s + stalled_s(self._beat_s, now_s))
        self._beat_s = now_s
        if now_s - self.heard_s > patience_s:
            log.error("link_silent")
            self._silent = True
            self.abort()
        if welcomed is None:
            return
        self._control(Beat(1))
        self._control(self._tenant.status())

    # frames

    def _frame(self, kind: int, body: bytes) -> None:
        if self.welcomed is None and kind != frames.CONTROL:
            raise MalformedMessage(f"a frame of kind {kind} before the welcome")
        if kind == frames.PEER:
            number, sequence, raw = frames.split_peer(body)
            connection = self._tenant.connections.get(number)
            if connection is None or connection.suspended:
                return
            if connection.receive_window.receive(sequence):
                connection.send([raw])
                self._take_over(connection)
        elif kind == frames.GRAPH:
            first_sequence, records = frames.split_graph(body)
            self._tenant.graph_records(first_sequence, decode_deltas(records))
        elif kind == frames.CONTROL:
            self._receive(frames.decode_to_frontend(body))
        else:
            raise MalformedMessage(f"a frame of kind {kind}")

    def _receive(self, message: ToFrontend) -> None:
        if self.welcomed is None:
            self._first(message)
            return
        connections = self._tenant.connections
        match message:
            case Welcome() | Rejected():
                raise MalformedMessage("a welcome comes first, and once")
            case Beat(number, _):
                if number:
                    self._control(Beat(0, echo=number))
            case Acks(acks):
                for number, sequence in acks:
                    if connection := connections.get(number):
                        self._acked(connection, sequence)
            case Act(number, act, _):
                if connection := connections.get(number):
                    connection.act(act)
            case Established():
                if connection := connections.get(message.session):
                    connection.established(message)
            case HandshakeRefused(number, cause):
                if connection := connections.get(number):
                    connection.close(cause)
            case Dial():
                self._tenant.dial(message)
            case CloseSession(number, cause, last):
                if connection := connections.get(number):
                    connection.close(cause, last)
            case Adopted(sessions):
                for number, sequence in sessions:
                    if connection := connections.get(number):
                        self._adopted(connection, sequence)
            case Leaving(returns):
                self._hold = returns
            case StartSync(number):
                if connection := connections.get(number):
                    self._tenant.start_sync(connection)
            case Shares():
                self._tenant.shares(message)
            case Drain(over_s):
                self._tenant.drain(over_s)
            case GraphCurrent(sequence):
                self._tenant.graph_current(sequence)
            case Verdicts(verdicts):
                self._tenant.verdicts(verdicts)
            case _:
                assert_never(message)

    def _first(self, message: ToFrontend) -> None:
        """Before its welcome a backend has no say: it may be one whose term is over."""
        if isinstance(message, Welcome):
            self._welcome(message)
        elif isinstance(message, Rejected):
            self.rejected, self._turned_away = message.reason, True
            log.error("rejected", reason=message.reason)
            self.abort()
        elif not isinstance(message, Beat):
            raise MalformedMessage(f"{type(message).__name__} before the welcome")

    def _welcome(self, message: Welcome) -> None:
        """Fenced: a backend whose term is over is not obeyed."""
        if message.epoch < self.highest_epoch:
            raise MalformedMessage(f"epoch {message.epoch} is over, {self.highest_epoch} was seen")
        if not PROTOCOL_MIN <= message.protocol <= PROTOCOL_MAX:
            raise MalformedMessage(f"protocol {message.protocol} was not offered")
        self.rejected = ""
        self._refused = False
        self.highest_epoch = message.epoch
        self.welcomed = message
        self.welcomes += 1
        self._hold = message.protocol >= PRESENTING
        self._tenant.welcome(message)
        if self._hold:
            for part in presented([c.held() for c in self._tenant.connections.values() if c.suspended]):
                self._control(part)
        self._control(self._tenant.status())  # a frontend that is drained is not dialled through

    def _adopted(self, connection: PeerConnection, sequence: int) -> None:
        """The backend goes on behind this message of the peer's: it gets what came since."""
        if not connection.suspended:
            raise MalformedMessage(f"session {connection.number} was not presented")
        connection.suspended = False
        self._acked(connection, sequence)
        for number, raw in connection.send_window.unacknowledged():
            self._write(frames.peer(connection.number, number, raw))

    def _acked(self, connection: PeerConnection, sequence: int) -> None:
        connection.send_window.acked(sequence)
        if not connection.send_window.exhausted:
            connection.release(Hold.CREDIT)

    def _control(self, message: Control) -> None:
        self._write(frames.control(message))

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _flush_acks(self) -> None:
        if self._acks:
            self._control(Acks(tuple(self._acks.items())))
            self._acks.clear()

    # what connections ask for

    def handshake_started(self, connection: PeerConnection, act: bytes) -> None:
        self._control(HandshakeStarted(connection.number, connection.address, act))

    def handshake_done(self, connection: PeerConnection) -> None:
        """It ran here; `connection.node_id` is who it is."""
        self._control(HandshakeDone(connection.number, connection.address, connection.node_id))

    def act(self, connection: PeerConnection, act: bytes) -> None:
        self._control(Act(connection.number, act, connection.dial))

    def ready(self, connection: PeerConnection, init: bytes) -> None:
        self._control(SessionReady(connection.number, init, connection.address))

    def message(self, connection: PeerConnection, raw: bytes) -> None:
        """Hand over what a peer sent; it is kept until the backend acknowledges it."""
        sequence = connection.send_window.sent(len(raw), raw)
        if not connection.suspended:
            self._write(frames.peer(connection.number, sequence, raw))

    def sent(self, connection: PeerConnection) -> None:
        """The peer has caught up: what the backend sent it meanwhile is taken over now."""
        self._take_over(connection)
        self._flush_acks()

    def _take_over(self, connection: PeerConnection) -> None:
        """What the backend sent is on its way to the peer; while that reads slowly, no more is taken over."""
        if connection.suspended:
            return
        if connection.writable and connection.receive_window.sequence:
            self._acks[connection.number] = connection.receive_window.sequence

    def ended(self, connection: PeerConnection, cause: str) -> None:
        self._acks.pop(connection.number, None)
        if connection.dial is not None and (connection.session is None or not connection.session.ready):
            self._control(DialFailed(connection.dial, cause))
        self._control(SessionEnded(connection.number, cause))

    def dial_failed(self, dial: int, cause: str) -> None:
        self._control(DialFailed(dial, cause))

    def offer(self, session: int, raw: bytes) -> int:
        """Ask for the backend's verdict; the number that it will come with."""
        self._offer = (self._offer + 1) & 0xFFFF_FFFF
        self._write(frames.offer(self._offer, session, raw))
        return self._offer

    def graph_wanted(self, after: int) -> None:
        self._control(GraphWanted(after))
