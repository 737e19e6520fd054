"""The backend's end of the link: takes frontends in, and turns their frames into calls."""

import asyncio
from typing import Protocol, assert_never, cast

from node.backend.greeting import MAX_FRONTENDS, Identity, name_of, objection, protocol_of, welcome
from node.backend.session import Session, SessionState
from node.crypto.keys import is_valid_point
from node.errors import MalformedMessage
from node.link import frames
from node.link.beats import stalled_s
from node.link.messages import (
    MAX_FRONTEND_ID,
    PRESENTING,
    Acks,
    Act,
    Adopted,
    Beat,
    CloseSession,
    DialFailed,
    Established,
    GraphWanted,
    HandshakeDone,
    HandshakeRefused,
    HandshakeStarted,
    HeldSession,
    Hello,
    Leaving,
    Present,
    Rejected,
    SessionEnded,
    SessionReady,
    Status,
    ToBackend,
)
from node.peer.handshake import HandshakeFailed, Initiator
from node.runtime import logs
from node.runtime.certificates import Member
from node.runtime.handshakes import Handshakes
from node.runtime.runtime import Runtime
from node.runtime.tls import peer_of

MAX_ADDRESS = 300  # characters: the longest host name, and a port
MAX_LINK_BUFFER_BYTES = 64 << 20  # a frontend that reads this slowly is as good as dead

log = logs.get("link")


class Office(Protocol):
    """Who the links report to: the switchboard for sessions, the graph for gossip."""

    def established(self, session: Session) -> None: ...
    def ready(self, session: Session, init: bytes) -> None: ...
    def message(self, session: Session, raw: bytes) -> None: ...
    def ended(self, session: Session, cause: str) -> None: ...
    def lost(self, session: Session) -> None:
        """Its link is gone; the frontend may hold it."""
        ...

    def adopt(self, session: Session, held: HeldSession) -> str | None:
        """Go on with a session that was held; or why not."""
        ...

    def presented(self, link: "FrontendLink") -> None:
        """The frontend holds no others."""
        ...

    def dial_failed(self, link: "FrontendLink", dial: int, cause: str) -> None: ...
    def has_room(self, frontend_id: str) -> bool:
        """Whether one more frontend, of this name, can be had."""
        ...

    def offered(self, link: "FrontendLink", number: int, raw: bytes) -> None: ...
    def graph_wanted(self, link: "FrontendLink", after: int) -> None: ...
    def link_up(self, link: "FrontendLink") -> None: ...
    def link_down(self, link: "FrontendLink") -> None: ...


class FrontendLink(asyncio.Protocol):
    """One frontend's connection."""

    def __init__(self, runtime: Runtime, office: Office, identity: Identity, handshakes: Handshakes) -> None:
        self._runtime = runtime
        self._office = office
        self._identity = identity
        self._handshakes = handshakes
        self._reader = frames.FrameReader()
        self._transport: asyncio.Transport | None = None
        self._acks: dict[int, int] = {}
        self._durable_acks: dict[int, int] = {}
        self._member: Member | None = None
        self.frontend_id = ""
        self.capabilities: tuple[str, ...] = ()
        self.version = ""
        self.protocol = 0
        self.sessions: dict[int, Session] = {}
        self.dials: dict[int, Initiator] = {}
        self.drained = False  # asked to
        self.heard_s = runtime.monotonic()
        self.delay_s = 0.0
        self.status: Status | None = None
        self.writable = True
        self._deaf = False
        self._beat = 0
        self._beat_sent_s = self.heard_s

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's subclasses
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self._member = peer_of(transport)
        self._transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self.heard_s = self._runtime.monotonic()
        try:
            for kind, body in self._reader.receive(data):
                self._frame(kind, body)
        except MalformedMessage as error:
            log.error("link_malformed", frontend=self.frontend_id, error=str(error))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.frontend_id:
            self._office.link_down(self)
        self.let_go()

    def let_go(self) -> None:
        """Nothing comes through this link any more: its sessions end, unless their frontend can hold them."""
        self._deaf = True
        for session in list(self.sessions.values()):
            if self.protocol >= PRESENTING and session.state is SessionState.READY:
                self.freeze(session)
            else:
                self._end(session, "link lost")

    def freeze(self, session: Session) -> None:
        """Take nothing more from it and give nothing more to it, and leave it with its frontend."""
        session.state = SessionState.ENDED
        self._forget(session)
        self._office.lost(session)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._office.graph_wanted(self, -2)  # go on with what is due

    @property
    def queue_bytes(self) -> int:
        """What waits to be written to the frontend."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def draining(self) -> bool:
        """Whether it is to get no new peers: it was asked to drain, or is about to end."""
        return self.drained or (self.status is not None and self.status.draining)

    # towards the frontend

    def write(self, frame: bytes) -> None:
        if self._transport is None:
            return
        if not self._identity.may_speak():  # fenced: the frontend finds whoever leads now
            self._transport.abort()
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > MAX_LINK_BUFFER_BYTES:
            log.error("link_overflow", frontend=self.frontend_id)
            self._transport.abort()

    def end_session(self, session: Session, cause: str, message: bytes = b"") -> None:
        """Have the frontend close it, after `message`; for us it is over now."""
        self.write(frames.control(CloseSession(session.number, cause, message)))
        self._end(session, cause)

    def seal_acks(self) -> None:
        """A transaction is closed: what was taken over so far may be acknowledged once it is durable."""
        self._durable_acks |= self._acks
        self._acks.clear()

    def flush_acks(self) -> None:
        """The sealed transaction is durable."""
        if self._durable_acks:
            self.write(frames.control(Acks(tuple(self._durable_acks.items()))))
            self._durable_acks.clear()

    def beat(self) -> None:
        """Send a sign of life; end a link that gives none."""
        now_s = self._runtime.monotonic()
        limits = self._identity.limits
        self.heard_s = min(now_s, self.heard_s + stalled_s(self._beat_sent_s, now_s))
        if now_s - self.heard_s > limits.beat_timeout_s:
            log.error("link_silent", frontend=self.frontend_id, silent_s=round(now_s - self.heard_s, 1))
            if self._transport is not None:
                self._transport.abort()
            return
        self._beat += 1
        self._beat_sent_s = now_s
        self.write(frames.control(Beat(self._beat)))
        patience_s = 2 * (limits.handshake_timeout_s + limits.init_timeout_s)
        for session in [s for s in self.sessions.values() if s.state is not SessionState.READY]:
            if now_s - session.since_s > patience_s:
                self.end_session(session, "timeout")

    def leave(self, *, returns: bool) -> None:
        """Say that the backend stops, and whether sessions are worth holding."""
        if self.protocol >= PRESENTING:
            self.write(frames.control(Leaving(returns)))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # from the frontend

    def _frame(self, kind: int, body: bytes) -> None:
        if kind == frames.PEER:
            number, sequence, raw = frames.split_peer(body)
            session = self.sessions.get(number)
            if session is None or session.state is not SessionState.READY:
                return  # it ended while the message was on its way
            if session.receive_window.receive(sequence):
                self._acks[number] = sequence
                self._office.message(session, raw)
        elif kind == frames.CONTROL:
            self._control(frames.decode_to_backend(body))
        elif kind == frames.OFFER and self.frontend_id:
            offer, _, raw = frames.split_offer(body)
            self._office.offered(self, offer, raw)
        else:
            raise MalformedMessage(f"a frame of kind {kind}")

    def _control(self, message: ToBackend) -> None:
        if isinstance(message, Hello) and not self.frontend_id:
            self._hello(message)
            return
        if not self.frontend_id or isinstance(message, Hello):
            raise MalformedMessage("a frontend says hello first, and once")
        match message:
            case Beat(number, echo):
                self._beat_heard(number, echo)
            case Status():
                self.status = message
            case Acks(acks):
                self._acked(acks)
            case HandshakeStarted(number, address, act):
                self._handshake_started(number, address, act)
            case Act(number, act, dial):
                self._act(number, act, dial)
            case HandshakeDone(number, address, node_id):
                self._handshake_done(number, address, node_id)
            case DialFailed(dial, cause):
                self.dials.pop(dial, None)
                self._office.dial_failed(self, dial, cause[:MAX_ADDRESS])
            case SessionReady(number, init, address):
                if (session := self.sessions.get(number)) and session.state is SessionState.INIT:
                    session.state = SessionState.READY
                    session.address = address[:MAX_ADDRESS]
                    self._office.ready(session, init)
            case SessionEnded(number, cause):
                if ended := self.sessions.get(number):
                    self._end(ended, cause[:MAX_ADDRESS])
            case GraphWanted(after):
                self._office.graph_wanted(self, after)
            case Present():
                self._present(message)
            case _:
                assert_never(message)

    def _hello(self, hello: Hello) -> None:
        """Versioned from the first message on: a frontend out of range hears why, once."""
        name, protocol = name_of(hello), protocol_of(hello)
        if reason := objection(hello, self._identity, self._member):
            self._reject(reason)
        elif not self._identity.may_speak():
            self._reject("this backend does not lead at the moment")
        elif not self._office.has_room(name):
            self._reject(f"there are {MAX_FRONTENDS} frontends already")
        else:
            self.frontend_id = name
            self.protocol = protocol
            self.capabilities = hello.capabilities[:MAX_FRONTEND_ID]
            self.version = hello.version[:MAX_FRONTEND_ID]
            elsewhere = self._handshakes.elsewhere
            self.write(frames.control(welcome(self._identity, protocol, frontend_handshakes=elsewhere)))
            self._office.link_up(self)
            if protocol < PRESENTING:
                self._office.presented(self)

    def _reject(self, reason: str) -> None:
        log.warning("frontend_rejected", member=self._member and self._member.name, reason=reason)
        if self._transport is not None:  # fenced or not: this carries nothing to a peer
            self._transport.write(frames.control(Rejected(reason)))
        self.close()

    def _beat_heard(self, number: int, echo: int) -> None:
        if echo and echo == self._beat:
            self.delay_s = self._runtime.monotonic() - self._beat_sent_s
        if number:
            self.write(frames.control(Beat(0, echo=number)))

    def _acked(self, acks: tuple[tuple[int, int], ...]) -> None:
        for number, sequence in acks:
            if session := self.sessions.get(number):
                session.send_window.acked(sequence)

    def _present(self, message: Present) -> None:
        """Adopt or close each session; what is said to an adopted one comes after that, on the same stream."""
        if self.protocol < PRESENTING:
            raise MalformedMessage("sessions are not presented in this protocol")
        adopted = []
        for held in message.sessions:
            if held.number in self.sessions:
                raise MalformedMessage(f"session {held.number} is taken")
            session = self._held_session(held)
            refused = self._office.adopt(session, held)
            if refused is not None:
                self.write(frames.control(CloseSession(held.number, refused)))
                continue
            self.sessions[held.number] = session
            adopted.append((held.number, session.receive_window.sequence))
        if adopted:
            self.write(frames.control(Adopted(tuple(adopted))))
        if message.last:
            self._office.presented(self)

    def _held_session(self, held: HeldSession) -> Session:
        window = self._identity.limits.session_window_bytes
        since_s = self._runtime.monotonic() - held.age_s
        session = Session(self, held.number, held.address[:MAX_ADDRESS], since_s, window)
        session.node_id = held.node_id
        session.incoming = held.incoming
        return session

    # handshakes

    def _new_session(self, number: int, address: str) -> Session:
        if number in self.sessions:
            raise MalformedMessage(f"session {number} is taken")
        window = self._identity.limits.session_window_bytes
        session = Session(self, number, address[:MAX_ADDRESS], self._runtime.monotonic(), window)
        self.sessions[number] = session
        return session

    def _handshake_started(self, number: int, address: str, act: bytes) -> None:
        session = self._new_session(number, address)
        try:
            session.handshake = self._handshakes.responder()
        except HandshakeFailed as error:
            self._refuse(session, error.cause)
            return
        self._runtime.spawn(self._advance(session, act), "handshake")

    def _handshake_done(self, number: int, address: str, node_id: bytes) -> None:
        """A frontend with the node key says who a peer is; believed where this backend is configured to."""
        if not self._handshakes.elsewhere:
            log.error("handshake_not_ours", frontend=self.frontend_id)
            self.write(frames.control(HandshakeRefused(number, "handshakes are the backend's")))
            return
        if self._handshakes.resting:
            self.write(frames.control(HandshakeRefused(number, "busy")))
            return
        if not is_valid_point(node_id):
            raise MalformedMessage("a peer's node id is no point")
        session = self._new_session(number, address)
        session.node_id = node_id
        session.state = SessionState.INIT
        self._office.established(session)

    def _act(self, number: int, act: bytes, dial: int | None) -> None:
        session = self.sessions.get(number)
        if dial is not None and session is None:
            initiator = self.dials.pop(dial, None)
            if initiator is None:
                self.write(frames.control(HandshakeRefused(number, "unknown dial")))
                return
            session = self._new_session(number, "")
            session.handshake = initiator
            session.incoming = False
        if session is not None:
            self._runtime.spawn(self._advance(session, act), "handshake")

    async def _advance(self, session: Session, act: bytes) -> None:
        handshake, session.handshake = session.handshake, None
        if handshake is None:  # an act out of turn: only a frontend gone wrong sends one
            self._refuse(session, "out of turn")
            return
        try:
            reply, result = await self._handshakes.act(handshake, act)
        except HandshakeFailed as error:
            self._refuse(session, error.cause)
            return
        if session.state is SessionState.ENDED:
            return
        if result is None:
            session.handshake = handshake
            self.write(frames.control(Act(session.number, reply)))
            return
        session.node_id = result.remote_static
        session.state = SessionState.INIT
        keys = (result.send_key, result.receive_key, result.chaining_key)
        self.write(frames.control(Established(session.number, session.node_id, *keys, act=reply)))
        self._office.established(session)

    def _refuse(self, session: Session, cause: str) -> None:
        self.write(frames.control(HandshakeRefused(session.number, cause)))
        self._end(session, cause)

    def _end(self, session: Session, cause: str) -> None:
        was = session.state
        session.state = SessionState.ENDED
        self._forget(session)
        if was is SessionState.READY:
            self._office.ended(session, cause)

    def _forget(self, session: Session) -> None:
        self.sessions.pop(session.number, None)
        self._acks.pop(session.number, None)
        self._durable_acks.pop(session.number, None)
