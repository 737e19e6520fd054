"""One connection of a light peer: BOLT 8 as the initiator, init, pings. Every other message is its owner's.

Thousands of these live in one process: whatever only the handshake needs is dropped after it, and no connection has
a timer or a task of its own.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from node.errors import MalformedMessage
from node.peer.connection import ActBuffer
from node.peer.handshake import ACT_TWO_SIZE, Initiator
from node.peer.session import NO_PONG
from node.peer.transport import Transport
from node.wire import bolt1
from node.wire.codec import decode_as, encode

WRITE_HIGH_BYTES = 256 * 1024  # the node reads slowly: nothing more is begun on this connection
MUCH_BYTES = 64 * 1024  # at once: there is probably more
READERS_AT_ONCE = 4  # of those who get much, between two looks at everybody else: some 20 ms

_INIT = bolt1.Init.number.to_bytes(2, "big")
_PING = bolt1.Ping.number.to_bytes(2, "big")
_PONG = bolt1.Pong.number.to_bytes(2, "big")


class Traffic:
    """What all connections of a swarm have moved so far, and whose turn it is to take in more.

    A loop reads from each socket as long as there is something. With many peers that download a graph this would go
    on for seconds, in which nobody answers a ping: so who gets much waits for its turn.
    """

    __slots__ = ("_waiting", "bytes_in", "bytes_out", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self._waiting: deque[Connection] = deque()

    def wait(self, connection: "Connection") -> None:
        """Have it read on when those who waited before have."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting.append(connection)

    def _next(self) -> None:
        for _ in range(min(READERS_AT_ONCE, len(self._waiting))):
            self._waiting.popleft().read_on()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


class Owner(Protocol):
    """Who a connection belongs to. `lost` is said once, and last."""

    def ready(self) -> None:
        """Init messages were exchanged: anything may be sent now."""
        ...

    def received(self, raw: bytes) -> None: ...

    def ponged(self, as_asked: bool) -> None:
        """The pong of the last ping came, of the size that was asked for or not."""
        ...

    def lost(self) -> None: ...


class Connection(asyncio.Protocol):
    __slots__ = (
        "_acts",
        "_handshake",
        "_init",
        "_owner",
        "_socket",
        "_traffic",
        "_transport",
        "ended",
        "ping_sent_s",
        "pong_size",
        "ready",
        "settled",
        "writable",
    )

    def __init__(
        self, owner: Owner, traffic: Traffic, handshake: Initiator, init: bytes, settled: asyncio.Future[None]
    ) -> None:
        """`settled` is done once the connection is ready or lost."""
        self._owner = owner
        self._traffic = traffic
        self._handshake: Initiator | None = handshake
        self._acts: ActBuffer | None = ActBuffer()
        self._init = init
        self._transport: Transport | None = None
        self._socket: asyncio.Transport | None = None
        self.settled: asyncio.Future[None] | None = settled
        self.ready = False
        self.writable = True
        self.ended = False
        self.ping_sent_s: float | None = None  # of the ping whose pong has not come
        self.pong_size = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's subclasses
        transport = cast(asyncio.Transport, transport)
        self._socket = transport
        if self.ended:  # given up before it came about
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        assert self._handshake is not None
        transport.write(self._handshake.act_one())

    def data_received(self, data: bytes) -> None:
        if self.ended:
            return
        self._traffic.bytes_in += len(data)
        if len(data) >= MUCH_BYTES and self._socket is not None:
            self._socket.pause_reading()
            self._traffic.wait(self)
        try:
            if self._transport is None:
                self._shake_hands(data)
            else:
                self._messages(self._transport.receive(data))
        except MalformedMessage:  # a wrong handshake is one too
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._socket = None
        self.abort()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    # the handshake

    def _shake_hands(self, data: bytes) -> None:
        acts, handshake = self._acts, self._handshake
        assert acts is not None
        assert handshake is not None
        assert self._socket is not None
        acts.receive(data)
        act = acts.take(ACT_TWO_SIZE)
        if act is None:
            return
        act_three = handshake.act_two(act)
        assert handshake.result is not None
        self._transport = Transport(handshake.result)
        # BOLT 1, init: ours does not wait for theirs
        self._socket.write(act_three + self._transport.encrypt((self._init,)))
        rest = acts.rest()
        self._acts = self._handshake = None
        if rest:
            self._messages(self._transport.receive(rest))

    # messages

    def _messages(self, raws: list[bytes]) -> None:
        self._traffic.messages_in += len(raws)
        for raw in raws:
            kind = raw[:2]
            if not self.ready:
                self._first(kind)
            elif kind == _PING:
                self._pong(decode_as(bolt1.Ping, raw))
            elif kind == _PONG:
                self._ponged(decode_as(bolt1.Pong, raw))
            else:
                self._owner.received(raw)
            if self.ended:
                return

    def _first(self, kind: bytes) -> None:
        # BOLT 1, init: it is the first message; what the features of a node under test are is not ours to judge
        if kind != _INIT:
            self.abort()
            return
        self.ready = True
        self._settle()
        self._owner.ready()

    def _pong(self, ping: bolt1.Ping) -> None:
        # BOLT 1, ping: from NO_PONG on no answer is wanted
        if ping.num_pong_bytes < NO_PONG:
            self.send((encode(bolt1.Pong(bytes(ping.num_pong_bytes))),))

    def _ponged(self, pong: bolt1.Pong) -> None:
        if self.ping_sent_s is not None:
            self._owner.ponged(len(pong.ignored) == self.pong_size)
            self.ping_sent_s = None

    def ping(self, now_s: float, pong_size: int) -> None:
        self.ping_sent_s, self.pong_size = now_s, pong_size
        self.send((encode(bolt1.Ping(pong_size, b"")),))

    def send(self, raws: Sequence[bytes]) -> None:
        """Write messages; only once ready. Nothing happens where the connection has ended."""
        if self._socket is None or self._transport is None or self.ended:
            return
        data = self._transport.encrypt(raws)
        self._traffic.messages_out += len(raws)
        self._traffic.bytes_out += len(data)
        self._socket.write(data)

    def read_on(self) -> None:
        if self._socket is not None and not self.ended:
            self._socket.resume_reading()

    def stop_reading(self) -> None:
        """Leave everything that comes from now on in the socket."""
        if self._socket is not None:
            self._socket.pause_reading()

    # the end

    def abort(self) -> None:
        """End it at once. Safe to call again."""
        if self.ended:
            return
        self.ended = True
        self.ready = False
        self.ping_sent_s = None
        if self._socket is not None:
            self._socket.abort()
        self._transport = self._acts = self._handshake = None
        self._settle()
        self._owner.lost()

    def _settle(self) -> None:
        settled, self.settled = self.settled, None
        if settled is not None and not settled.done():
            settled.set_result(None)
