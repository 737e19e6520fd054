"""A node's frontend in a crash world: outlives its backends, holds what it should, and has no sockets.

Behind the link is the real `FrontendLink`. What a backend wrote and nobody has read when it dies arrives all the same,
or does not: then it was the host that died.
"""

from collections import deque
from functools import partial

from node.backend.identity import FEATURES
from node.backend.session import SessionState
from node.link import frames
from node.link import messages as lm
from node.link.flow import ReceiveWindow, SendWindow
from node.link.presenting import presented
from node.wire.bolt1 import Init
from node.wire.codec import encode

INIT = encode(Init(b"", FEATURES.to_bytes()))
WINDOW_BYTES = 1 << 20
REFUSALS = ("not held", "not the newest", "out of step")
ENDS = ("replaced", "killed", "closed")


class Way:
    """Carries things in order, each after a while."""

    def __init__(self, world):
        self._world, self._waiting = world, deque()

    def send(self, call, *arguments):
        self._waiting.append(partial(call, *arguments))
        if len(self._waiting) == 1:
            self._world.later(self._arrived)

    def drop(self):
        """What is on its way never arrives."""
        for place in range(len(self._waiting)):
            self._waiting[place] = _nothing

    def _arrived(self):
        self._waiting[0]()
        self._waiting.popleft()
        if self._waiting:
            self._world.later(self._arrived)


class Connection:
    """A peer's, at the frontend of one of the two."""

    def __init__(self, frontend, number, remote):
        self.frontend, self.number, self.remote = frontend, number, remote
        self.node_id = remote.backend.node_id
        self.other = None
        self.way = Way(frontend.node.world)
        self.window, self.received = SendWindow(WINDOW_BYTES), ReceiveWindow()
        self.is_open = self.is_ready = True
        self.suspended = False

    def take_over(self, sequence, raw):
        """From the backend, for the peer."""
        if self.received.receive(sequence):
            self.way.send(self.other.arrived, raw)

    def arrived(self, raw):
        """From the peer, for the backend."""
        if self.is_open:
            sequence = self.window.sent(len(raw), raw)
            if not self.suspended:
                self.frontend.up(frames.peer(self.number, sequence, raw))

    def close(self, cause):
        if self.is_open:
            self.is_open = False
            self.frontend.connections.pop(self.number)
            self.way.send(self.other.close, cause)
            self.frontend.up(frames.control(lm.SessionEnded(self.number, cause)))

    def held(self):
        acked, received = self.window.acknowledged, self.received.sequence
        return lm.HeldSession(self.number, self.node_id, INIT, "", self.window.sequence, acked, received)


class Wire:
    """The backend's transport, for one life."""

    def __init__(self, frontend):
        self.frontend, self.way, self.reader = frontend, Way(frontend.node.world), frames.FrameReader()

    def write(self, data):
        if not self.frontend.node.is_dead:
            for kind, body in self.reader.receive(data):
                self.way.send(self.frontend.receive, kind, body)

    def get_write_buffer_size(self):
        return 0

    def set_write_buffer_limits(self, high):
        pass

    def get_extra_info(self, name):
        return None

    def close(self):
        assert self.frontend.node.is_stopping, "the backend ends a link that nothing was wrong with"

    abort = close


class Frontend:
    """One for each node; each life of its backend gets a link of its own."""

    def __init__(self, node):
        self.node, self.connections = node, {}
        self.link = self.wire = None
        self.adopted = 0

    def connect(self):
        self.link, self.wire = self.node.backend._link(), Wire(self)
        self.link.connection_made(self.wire)
        self.up(frames.control(lm.Hello(1, 2, f"f-{self.node.name}", "test")))

    def up(self, data):
        if self.link is not None:
            self.link.data_received(data)

    def lost(self):
        """The backend was killed; perhaps its host was."""
        world = self.node.world
        self.link = None
        if world.random.random() < world.drops:
            self.wire.way.drop()
        self.wire.way.send(self._suspend)  # after all that is read before the end of the stream

    def _suspend(self):
        for connection in list(self.connections.values()):
            if self.node.world.holding and connection.is_ready:
                connection.suspended = True
            else:
                connection.close("killed")
        self.node.frontend_knows.set()

    def join(self, connection):
        """A session whose handshake has run."""
        self.connections[connection.number] = connection
        session = self.link._new_session(connection.number, "")
        session.node_id, session.state = connection.node_id, SessionState.INIT
        connection.way.send(connection.other.frontend.up, frames.control(_ready(connection)))

    def receive(self, kind, body):
        if kind == frames.PEER:
            number, sequence, raw = frames.split_peer(body)
            if connection := self.connections.get(number):
                connection.take_over(sequence, raw)
                self.up(frames.control(lm.Acks(((number, sequence),))))
            return
        message = frames.decode_to_frontend(body) if kind == frames.CONTROL else None
        match message:
            case lm.Leaving(returns):
                assert returns
            case lm.Welcome():
                for part in presented([c.held() for c in self.connections.values() if c.suspended]):
                    self.up(frames.control(part))
            case lm.Adopted(sessions):
                for number, sequence in sessions:
                    self._adopted(number, sequence)
            case lm.Acks(acks):
                for number, sequence in acks:
                    if connection := self.connections.get(number):
                        connection.window.acked(sequence)
            case lm.CloseSession(number, cause, _):
                self._closed(number, cause)

    def _adopted(self, number, sequence):
        if connection := self.connections.get(number):
            self.adopted += 1
            connection.suspended = False
            connection.window.acked(sequence)
            for place, raw in connection.window.unacknowledged():
                self.up(frames.peer(number, place, raw))

    def _closed(self, number, cause):
        world = self.node.world
        if not cause.startswith((*REFUSALS, *ENDS)):
            world.faults.append(f"{self.node.name}: {cause}")
        if connection := self.connections.get(number):
            world.refused += [cause] * cause.startswith(REFUSALS)
            connection.close(cause)


def _ready(connection):
    return lm.SessionReady(connection.number, INIT, "")


def _nothing():
    """Was lost."""
