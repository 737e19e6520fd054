"""A session as the backend sees it: one BOLT 8 connection of one peer, held by a frontend."""

from enum import Enum
from functools import partial
from typing import Protocol

from node.backend.journal import Journal
from node.link import frames
from node.link.flow import ReceiveWindow, SendWindow
from node.peer.handshake import Initiator, Responder
from node.wire.codec import Message, encode
from node.wire.features import Features


class SessionState(Enum):
    HANDSHAKE = "handshake"
    INIT = "init"  # the handshake ran; the frontend exchanges init messages
    READY = "ready"
    ENDED = "ended"


class Carrier(Protocol):
    """The link that a session came through."""

    frontend_id: str

    def write(self, frame: bytes) -> None: ...

    def end_session(self, session: "Session", cause: str, message: bytes = b"") -> None: ...

    def freeze(self, session: "Session") -> None: ...


class Ledger(Protocol):
    """Who keeps count of what a session has got through."""

    def moved(self, session: "Session") -> None: ...


class Session:
    """Mutable; owned by the link that carries it. Named (frontend_id, number), never reused.

    `decided` counts the messages to the peer that were decided on, sent already or not.
    """

    __slots__ = (
        "address",
        "decided",
        "features",
        "handshake",
        "incoming",
        "ledger",
        "link",
        "node_id",
        "number",
        "outgoing",
        "receive_window",
        "send_window",
        "since_s",
        "state",
    )

    def __init__(self, link: Carrier, number: int, address: str, since_s: float, window_bytes: int) -> None:
        self.link = link
        self.number = number
        self.address = address
        self.since_s = since_s
        self.state = SessionState.HANDSHAKE
        self.handshake: Responder | Initiator | None = None
        self.node_id = b""
        self.incoming = True
        self.features = Features()
        self.ledger: Ledger | None = None
        self.decided = 0
        self.send_window = SendWindow(window_bytes)
        self.receive_window = ReceiveWindow()

    def resume(self, received: int, decided: int) -> None:
        """It was held, and goes on behind these messages of either direction."""
        self.state = SessionState.READY
        self.receive_window = ReceiveWindow(received)
        self.send_window = SendWindow(self.send_window.limit, decided)
        self.decided = decided

    @property
    def name(self) -> str:
        return f"{self.link.frontend_id}/{self.number}"

    @property
    def is_settled(self) -> bool:
        """Whether all that was decided on has been handed to the frontend."""
        return self.decided == self.send_window.sequence

    def post(self, journal: Journal, message: Message) -> None:
        """Send it as soon as what it rests on is durable."""
        self.decided += 1
        if self.ledger is not None:
            self.ledger.moved(self)
        journal.send(partial(self._send, message))

    def _send(self, message: Message) -> None:
        """Hand a message to the frontend; a session that has ended carries nothing.

        Overflowing the window ends the session: dropping a message and going on is never an option.
        """
        if self.state is not SessionState.READY:
            return
        raw = encode(message)
        self.link.write(frames.peer(self.number, self.send_window.sent(len(raw)), raw))
        if self.send_window.unacked_bytes > 16 * self.send_window.limit:
            self.link.end_session(self, "overflow")
