"""Connections in memory: two ends, and a way in either direction that takes its time, keeps the order and fills up.

An end behaves as asyncio's socket transports do, as far as a protocol can tell.
"""

import asyncio
import random
from collections import deque
from contextvars import Context
from enum import Enum
from typing import Any, Protocol

from lnsim.world.loop import VirtualLoop
from lnsim.world.trace import Trace
from node.runtime.runtime import ProtocolFactory

WAY_BYTES = 256 * 1024  # on its way or not yet read: what the buffers of two kernels hold of one direction
HIGH_BYTES = 64 * 1024  # asyncio's own limit of what waits in the transport
JITTER = 0.5  # of a way's latency, at most, on top of it
SPLIT_SHARE = 0.05  # of deliveries that come in two pieces


class Signal(Enum):
    """What travels besides bytes."""

    OPEN = "open"
    EOF = "eof"
    RESET = "reset"


Item = bytes | Signal


class Owner(Protocol):
    """The process that an end belongs to."""

    name: str
    context: Context
    ends: "dict[End, None]"
    fuse: int | None

    @property
    def is_over(self) -> bool: ...

    def busy_for(self) -> float:
        """How long until it can take in what arrives now."""
        ...

    def occupy(self, size: int) -> None:
        """It takes in so many bytes now, and is busy for a while."""
        ...

    def burnt_out(self) -> bool:
        """Count one write; whether it is the one that no longer happens."""
        ...


class Link:
    """How things stand between two processes; every connection between them looks here."""

    __slots__ = ("_held", "clogged", "cut", "delay_s", "ends")

    def __init__(self) -> None:
        self.cut = False
        self.clogged = False
        self.delay_s = 0.0
        self.ends: dict[End, None] = {}
        self._held: dict[Way, None] = {}

    def hold(self, way: "Way") -> None:
        """It has something that would arrive if the link were not clogged."""
        self._held[way] = None

    def let_go(self) -> None:
        held, self._held = self._held, {}
        for way in held:
            way.arm()


class Way:
    """One direction of a connection. Its arrivals are turns of the process that it leads to."""

    __slots__ = (
        "_armed",
        "_flights",
        "_last_s",
        "_latency_s",
        "_link",
        "_loop",
        "_put_s",
        "_random",
        "size",
        "target",
    )

    def __init__(self, loop: VirtualLoop, link: Link, latency_s: float, chance: random.Random) -> None:
        self._loop = loop
        self._link = link
        self._latency_s = latency_s
        self._random = chance
        self._flights: deque[tuple[float, Item]] = deque()
        self._armed = False
        self._last_s = self._put_s = -1.0
        self.size = 0  # bytes that the target has not taken yet
        self.target: End

    def carry(self, item: Item) -> None:
        """What is sent at one moment arrives at one moment, never before what was sent earlier."""
        now_s = self._loop.time()
        if now_s != self._put_s:
            took_s = self._latency_s * (1.0 + JITTER * self._random.random()) + self._link.delay_s
            self._last_s = max(self._last_s, now_s + took_s)
            self._put_s = now_s
        self._flights.append((self._last_s, item))
        if isinstance(item, bytes):
            self.size += len(item)
        self.arm()

    def arm(self) -> None:
        """See to it that the next arrival happens."""
        if not self._flights or self._armed:
            return
        if self._link.clogged:
            self._link.hold(self)
        else:
            self._armed = True
            self._loop.call_at(self._flights[0][0], self._arrive, context=self.target.owner.context)

    def _arrive(self) -> None:
        if self._link.clogged:
            self._armed = False
            self._link.hold(self)
            return
        wait_s = self.target.owner.busy_for()
        if wait_s > 0:
            self._loop.call_later(wait_s, self._hand_over, context=self.target.owner.context)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._armed = False
        due: list[bytes] = []
        now_s, flights = self._loop.time(), self._flights
        while flights and flights[0][0] <= now_s:
            item = flights[0][1]
            if isinstance(item, Signal):
                if due:
                    break
                flights.popleft()
                self.arm()
                self.target.signalled(item)
                return
            due.append(item)
            flights.popleft()
        data = due[0] if len(due) == 1 else b"".join(due)
        if len(data) > 1 and self._random.random() < SPLIT_SHARE:
            cut = self._random.randrange(1, len(data))
            flights.appendleft((now_s + self._latency_s * self._random.random(), data[cut:]))
            data = data[:cut]
        self.arm()
        self.target.owner.occupy(len(data))
        self.target.arrived(data)


class End(asyncio.Transport):
    """One side of a connection, as its process has it."""

    def __init__(
        self, loop: VirtualLoop, trace: Trace, owner: Owner, way: Way, link: Link, **extra: Any
    ) -> None:
        super().__init__(extra)
        self.owner = owner
        self.other: End
        self._loop = loop
        self._trace = trace
        self._way = way  # out
        self._link = link
        self._protocol: asyncio.Protocol | None = None
        self._waiting: asyncio.Future[End] | None = None
        self._factory: ProtocolFactory | None = None
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._high, self._low = HIGH_BYTES, HIGH_BYTES // 4
        self._writing_paused = False
        self._reading_paused = False
        self._inbox: deque[Item] = deque()  # what came while nobody read
        self._is_reset = False
        self._ended_out = False  # write_eof was called
        self._eof_sent = False
        self._closing = False
        self._lost = False
        owner.ends[self] = None
        link.ends[self] = None

    # how it begins

    def begin(self, factory: ProtocolFactory) -> None:
        """Let a new protocol have this end."""
        protocol = self._protocol = factory()
        self._trace.note(self.other.owner.name, self.owner.name, "open")
        protocol.connection_made(self)

    def expect(self, factory: ProtocolFactory, waiting: "asyncio.Future[End]") -> None:
        """The dialling side: its protocol begins once the other side's consent arrives."""
        self._factory, self._waiting = factory, waiting

    def consent(self) -> None:
        self._way.carry(Signal.OPEN)

    def _opened(self) -> None:
        assert self._waiting is not None
        assert self._factory is not None
        if self._waiting.done():  # whoever asked gave up
            self.abort()
            return
        self.begin(self._factory)
        self._waiting.set_result(self)

    @property
    def protocol(self) -> asyncio.Protocol:
        assert self._protocol is not None
        return self._protocol

    # reading, as asyncio.Transport

    def is_reading(self) -> bool:
        return not self._reading_paused and not self._closing

    def pause_reading(self) -> None:
        if not self._closing:
            self._reading_paused = True

    def resume_reading(self) -> None:
        if self._reading_paused and not self._closing:
            self._reading_paused = False
            self._loop.call_soon(self._read_on, context=self.owner.context)

    def _read_on(self) -> None:
        while self._inbox and not self._reading_paused and not self._closing:
            item = self._inbox.popleft()
            if isinstance(item, bytes):
                self._deliver(item)
            else:
                self.signalled(item)
        if self._is_reset and not self._reading_paused:
            self._lose(ConnectionResetError("connection reset"))

    def arrived(self, data: bytes) -> None:
        if self._closing:  # nobody reads any more
            self.other.taken(len(data))
            if self._lost:
                self._way.carry(Signal.RESET)
        elif self._reading_paused or self._inbox:
            self._inbox.append(data)
        else:
            self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        self._trace.note(self.other.owner.name, self.owner.name, "data", data)
        self.other.taken(len(data))
        assert self._protocol is not None
        try:
            self._protocol.data_received(data)
        except Exception as error:  # noqa: BLE001 - as asyncio: the connection ends, the loop's handler is told
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.owner.is_over:  # it was killed amid this
            return
        message = f"{self.owner.name}: data_received of {type(self._protocol).__name__} failed"
        self._loop.call_exception_handler({"message": message, "exception": error, "transport": self})
        self._lose(error)

    def signalled(self, signal: Signal) -> None:
        if signal is Signal.OPEN:
            self._opened()
        elif self._closing:
            return
        elif signal is Signal.RESET:
            if self._reading_paused:  # is noticed with the next write, or when it is read again
                self._is_reset = True
            else:
                self._lose(ConnectionResetError("connection reset"))
        elif self._reading_paused or self._inbox:
            self._inbox.append(signal)
        else:
            self._trace.note(self.other.owner.name, self.owner.name, "eof")
            if self._protocol is None or not self._protocol.eof_received():
                self.close()

    # writing, as asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if self.owner.fuse is not None and self.owner.burnt_out():
            return
        if self._ended_out:
            raise RuntimeError("write after write_eof")
        if self._is_reset:
            self._lose(BrokenPipeError("broken pipe"))
            return
        raw = bytes(data)
        if not self._unsent and self._way.size + len(raw) <= WAY_BYTES:
            self._way.carry(raw)
            return
        self._unsent.append(raw)
        self._unsent_size += len(raw)
        self._push()
        if self._unsent_size > self._high and not self._writing_paused and self._protocol is not None:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._ended_out and not self._closing:
            self._ended_out = True
            if not self._unsent:
                self._send_eof()

    def _send_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._way.carry(Signal.EOF)

    def get_write_buffer_size(self) -> int:
        return self._unsent_size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_BYTES if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def taken(self, size: int) -> None:
        """The other side has read so much: there is room on the way."""
        self._way.size -= size
        if self._unsent:
            self._loop.call_soon(self._push_on, context=self.owner.context)

    def _push_on(self) -> None:
        self._push()
        if self._unsent:
            return
        if self._closing:
            self._finish(None)
        elif self._ended_out:
            self._send_eof()

    def _push(self) -> None:
        while self._unsent and (room := WAY_BYTES - self._way.size) > 0:
            raw = self._unsent.popleft()
            if len(raw) > room:
                self._unsent.appendleft(raw[room:])
                raw = raw[:room]
            self._unsent_size -= len(raw)
            self._way.carry(raw)
        if self._writing_paused and self._unsent_size <= self._low and self._protocol is not None:
            self._writing_paused = False
            self._protocol.resume_writing()

    # the end, as asyncio.Transport

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._drop_inbox()
            if not self._unsent:
                self._finish(None)

    def abort(self) -> None:
        self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        """At once, whatever is unsent."""
        self._closing = True
        self._drop_inbox()
        self._unsent.clear()
        self._unsent_size = 0
        self._finish(error)

    def _drop_inbox(self) -> None:
        for item in self._inbox:
            if isinstance(item, bytes):
                self.other.taken(len(item))
        self._inbox.clear()

    def _finish(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        self._forget()
        if not isinstance(error, ConnectionError):
            self._send_eof()
        self._loop.call_soon(self._tell_lost, error, context=self.owner.context)

    def _tell_lost(self, error: Exception | None) -> None:
        self._trace.note(self.owner.name, self.owner.name, "lost")
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    def _forget(self) -> None:
        self.owner.ends.pop(self, None)
        self._link.ends.pop(self, None)

    # what the world does to it

    def cut(self) -> None:
        """The network lost the connection: this side notices it now."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError("connection reset"))
        self._lose(ConnectionResetError("connection reset"))

    def die(self, last: Signal) -> None:
        """The process is gone: what had left it still arrives, and then `last`; its protocol hears nothing."""
        if self._lost:
            return
        self._closing = self._lost = True
        self._unsent.clear()
        self._unsent_size = 0
        self._forget()
        self._drop_inbox()
        self._way.carry(last)
