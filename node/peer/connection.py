"""BOLT 8 in one process: handshake and transport behind one object. Sans-IO; what simulated peers use."""

from collections.abc import Iterable

from node.peer.handshake import ACT_THREE_SIZE, HandshakeFailed, HandshakeResult, Initiator, Responder
from node.peer.transport import MAX_PACKET_SIZE, Transport

# The last act and one packet right behind it (an honest peer sends its init, and waits for ours).
MAX_EARLY_BYTES = ACT_THREE_SIZE + MAX_PACKET_SIZE


class ActBuffer:
    """Collects what the socket gives during the handshake and hands out exact acts; bounded."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def receive(self, data: bytes) -> None:
        """Add bytes; HandshakeFailed once more is waiting than an honest peer could have sent."""
        self._bytes += data
        if len(self._bytes) > MAX_EARLY_BYTES:
            raise HandshakeFailed(3, "too_much")

    def take(self, size: int) -> bytes | None:
        """The next `size` bytes, or None while they are not all here."""
        if len(self._bytes) < size:
            return None
        act = bytes(self._bytes[:size])
        del self._bytes[:size]
        return act

    def rest(self) -> bytes:
        """What came behind the last act: it belongs to the transport. Empties the buffer."""
        rest = bytes(self._bytes)
        self._bytes.clear()
        return rest


class NoiseConnection:
    """One BOLT 8 connection, either role: bytes in, messages out. Sends nothing of its own but the acts."""

    __slots__ = ("_acts", "_handshake", "_out", "_transport", "result")

    def __init__(self, handshake: Initiator | Responder) -> None:
        self.result: HandshakeResult | None = None
        self._handshake = handshake
        self._acts = ActBuffer()
        self._transport: Transport | None = None
        self._out = bytearray()
        if isinstance(handshake, Initiator):
            self._out += handshake.act_one()

    @property
    def established(self) -> bool:
        return self._transport is not None

    def receive(self, data: bytes) -> list[bytes]:
        """Take whatever the socket gave; return the messages that are now complete.

        Raises HandshakeFailed or MalformedMessage: the connection is unusable from there on.
        """
        if self._transport is not None:
            return self._transport.receive(data)
        self._acts.receive(data)
        while self.result is None:
            act = self._acts.take(self._handshake.wanted)
            if act is None:
                return []
            self._out += self._handshake.receive(act)
            self.result = self._handshake.result
        self._transport = Transport(self.result)
        return self._transport.receive(self._acts.rest())

    def send(self, messages: Iterable[bytes]) -> None:
        """Queue messages behind what waits in `data_to_send`; only once established."""
        assert self._transport is not None, "messages have to wait for the handshake"
        self._out += self._transport.encrypt(messages)

    def data_to_send(self) -> bytes:
        """What has to go out on the socket now; each byte is given once."""
        data = bytes(self._out)
        self._out.clear()
        return data
