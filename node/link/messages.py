"""What frontend and backend tell each other, apart from bulk frames (`node.link.frames`).

Every message is a msgpack map with a `t` tag. Unknown fields are ignored and new ones have defaults, so that a
frontend one release behind or ahead works; what can't be expressed so raises the protocol number.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

PROTOCOL_MIN = 1
PROTOCOL_MAX = 2
PRESENTING = 2  # from here on sessions are presented and adopted; before, they end with the link

DRAINS = "drain"  # capability of a frontend that understands Drain
PROXIES = "proxy"  # of one that does as Welcome.dialling says
OWN_PROXY = "own_proxy"  # of one that knows a SOCKS proxy by itself

MAX_FRONTEND_ID = 64  # characters; names a process in logs and metrics


Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Point = Annotated[bytes, Meta(min_length=33, max_length=33)]
Count = Annotated[
    int, Meta(ge=0, le=1 << 62)
]  # also a session's number: both go into columns of 64 bits, signed
Interval = Annotated[float, Meta(gt=0)]


class Control(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="t"):
    """A control message of the link."""


class Limits(msgspec.Struct, frozen=True):
    """What the backend asks of every frontend, so that all behave alike."""

    session_window_bytes: int = 262_144
    handshake_timeout_s: float = 20.0
    init_timeout_s: float = 20.0
    ping_interval_s: float = 30.0
    ping_timeout_s: float = 30.0
    beat_interval_s: float = 1.0
    beat_timeout_s: float = 3.0
    silent_hold_s: float = 3.0  # for sessions of a link that fell silent: by then whoever leads next does
    queries_per_s: Interval = 5.0
    flush_interval_s: Interval = 60.0
    max_write_buffer_bytes: int = 4_194_304


class Dialling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How frontends reach peers: "direct", "proxy" or "never" for each kind of address.

    `socks` is for those that know no proxy of their own; `isolate` asks for a user name for each peer there. `only`:
    a frontend may have no port that others than this host reach.
    """

    socks: str = ""
    onion: str = "proxy"
    ipv4: str = "direct"
    ipv6: str = "direct"
    dns: str = "direct"
    isolate: bool = True
    only: bool = False

    def way(self, kind: str | None) -> str:
        """Of one of these kinds; None: a socket of this host."""
        match kind:
            case None:
                return "direct"
            case "onion":
                return self.onion
            case "ipv4":
                return self.ipv4
            case "ipv6":
                return self.ipv6
            case "dns":
                return self.dns
            case _:
                return "never"


class Hello(Control, frozen=True, tag="hello"):
    """First on a link, from the frontend: who it is and which protocols it speaks."""

    protocol_min: int
    protocol_max: int
    frontend_id: str
    version: str
    highest_epoch: int = 0
    capabilities: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class Welcome(Control, frozen=True, tag="welcome"):
    """The backend's answer: the protocol chosen, its term of leadership, and what to tell peers."""

    protocol: int
    epoch: int
    node_id: bytes
    chain_hash: bytes
    features: bytes
    graph_sequence: int
    limits: Limits = Limits()
    frontend_handshakes: bool = False
    dialling: Dialling = Dialling()


class Rejected(Control, frozen=True, tag="rejected"):
    """The backend will not have this frontend; the link ends."""

    reason: str


class Beat(Control, frozen=True, tag="beat"):
    """A sign of life; `echo` returns the other side's last number, for the delay."""

    number: int
    echo: int = 0


class Status(Control, frozen=True, tag="status"):
    """A frontend's load, with each beat."""

    sessions: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    graph_sequence: int
    handshakes: int = 0
    connections_per_s: float = 0.0
    gossip_bytes_per_s: float = 0.0
    shares: int = 0  # the last Shares that came
    draining: bool = False
    ready: bool = True


class Shares(Control, frozen=True, tag="shares"):
    """A frontend's part of the node's limits, until the next; to those with the capability of this name.

    What holds for one address or one peer is the same for all frontends.
    """

    number: int
    handshakes: int
    connections: int
    connections_per_s: float
    gossip_bytes_per_s: float
    handshakes_per_address: int = 0  # 0, here and below: no limit
    connections_per_address: int = 0
    connections_per_s_per_address: int = 0
    gossip_bytes_per_s_per_peer: int = 0
    gossip_burst_per_peer: int = 0


class Drain(Control, frozen=True, tag="drain"):
    """Take no new peers, and let those that are there go evenly over this time; None: serve again.

    Only for a frontend whose Hello names the capability DRAINS: an older one would not know the message.
    """

    over_s: Annotated[float, Meta(ge=0)] | None


class Acks(Control, frozen=True, tag="acks"):
    """Cumulative acknowledgements: (session, highest sequence number taken over)."""

    acks: tuple[tuple[int, int], ...]


class HandshakeStarted(Control, frozen=True, tag="started"):
    """A stranger connected and sent act one."""

    session: Count
    address: str
    act: bytes


class Act(Control, frozen=True, tag="act"):
    """A later act of a session's handshake: from the peer on the way up, for the peer on the way down."""

    session: Count
    act: bytes
    dial: int | None = None


class Established(Control, frozen=True, tag="established"):
    """The handshake ran; the transport keys, and the last act where we are the initiator."""

    session: int
    node_id: bytes
    send_key: Key
    receive_key: Key
    chaining_key: Key
    act: bytes = b""


class HandshakeDone(Control, frozen=True, tag="done"):
    """A frontend with the node key ran a stranger's handshake itself; only where Welcome.frontend_handshakes."""

    session: Count
    address: str
    node_id: Annotated[bytes, Meta(min_length=33, max_length=33)]


class HandshakeRefused(Control, frozen=True, tag="refused"):
    session: int
    cause: str


class Dial(Control, frozen=True, tag="dial"):
    """Connect to a peer and start the handshake with this act one."""

    dial: int
    node_id: bytes
    address: str
    act: bytes
    timeout_s: float = 20.0


class DialFailed(Control, frozen=True, tag="dial_failed"):
    dial: int
    cause: str


class SessionReady(Control, frozen=True, tag="ready"):
    """Init messages were exchanged; `init` is the peer's, raw."""

    session: int
    init: bytes
    address: str


class SessionEnded(Control, frozen=True, tag="ended"):
    session: int
    cause: str


class CloseSession(Control, frozen=True, tag="close"):
    """End a session; `message` (raw) goes out first."""

    session: int
    cause: str
    message: Annotated[bytes, Meta(max_length=65_535)] = b""


class HeldSession(msgspec.Struct, frozen=True, array_like=True):
    """A session that its frontend kept while the backend was away; `init` is the peer's, raw.

    Messages from the peer: `sent` were handed over, `acked` of them acknowledged. To the peer: `received` were taken
    over. The session is `age_s` old, and was dialled by the peer if `incoming`.
    """

    number: int
    node_id: Point
    init: Annotated[bytes, Meta(max_length=65_535)]
    address: str
    sent: Count
    acked: Count
    received: Count
    age_s: float = 0.0
    incoming: bool = True


class Present(Control, frozen=True, tag="present"):
    """After the welcome: what this frontend holds, a part at a time. Each session is adopted or closed."""

    sessions: tuple[HeldSession, ...]
    last: bool = False


class Adopted(Control, frozen=True, tag="adopted"):
    """(session, sequence): these go on; what the peer sent after `sequence` is handed over, again or at last."""

    sessions: tuple[tuple[int, int], ...]


class Leaving(Control, frozen=True, tag="leaving"):
    """The backend stops; if it `returns`, sessions are to be held for the next one."""

    returns: bool = True


class StartSync(Control, frozen=True, tag="sync"):
    """Ask this peer for gossip: run the queries of BOLT 7, then stream what is new."""

    session: int


class GraphWanted(Control, frozen=True, tag="graph_wanted"):
    """Send what came after `after` (-1: everything)."""

    after: int


class GraphCurrent(Control, frozen=True, tag="graph_current"):
    """All records up to `sequence` have been sent."""

    sequence: int


class Verdicts(Control, frozen=True, tag="verdicts"):
    """(offer, verdict) pairs for announcements that a frontend offered (`node.gossip.validation.Verdict`)."""

    verdicts: tuple[tuple[int, int], ...]


ToBackend = (
    Hello
    | Beat
    | Status
    | Acks
    | HandshakeStarted
    | HandshakeDone
    | Act
    | DialFailed
    | SessionReady
    | SessionEnded
    | GraphWanted
    | Present
)
ToFrontend = (
    Welcome
    | Rejected
    | Beat
    | Acks
    | Act
    | Established
    | HandshakeRefused
    | Dial
    | CloseSession
    | Adopted
    | Leaving
    | StartSync
    | Drain
    | GraphCurrent
    | Verdicts
    | Shares
)
