"""A session as the backend sees it: one BOLT 8 connection of one peer, held by a frontend."""

from enum import Enum
from typing import Protocol

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


class Session:
    """Mutable; owned by the link that carries it. Named (frontend_id, number), never reused."""

    __slots__ = (
        "address",
        "features",
        "handshake",
        "incoming",
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
        self.send_window = SendWindow(window_bytes)
        self.receive_window = ReceiveWindow()

    @property
    def name(self) -> str:
        return f"{self.link.frontend_id}/{self.number}"

    def send(self, message: Message) -> None:
        """Hand a message to the frontend; a session that has ended carries nothing.

        Overflowing the window ends the session: dropping a message and going on is never an option.
        """
        if self.state is not SessionState.READY:
            return
        raw = encode(message)
        self.link.write(frames.peer(self.number, self.send_window.sent(len(raw)), raw))
        if self.send_window.unacked_bytes > 16 * self.send_window.limit:
            self.link.end_session(self, "overflow")
