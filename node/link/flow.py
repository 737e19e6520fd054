"""Sequence numbers, acknowledgements and credit of one direction of one session."""

from collections import deque

from node.errors import MalformedMessage


class SendWindow:
    """Numbers what is sent and knows how many bytes the other side has not taken over yet."""

    __slots__ = ("_pending", "limit", "sequence", "unacked_bytes")

    def __init__(self, limit: int, sequence: int = 0) -> None:
        """`sequence` is the last that was sent before, and taken over."""
        self.limit = limit
        self.sequence = sequence
        self.unacked_bytes = 0
        # most sessions are idle: allocated on first use
        self._pending: deque[tuple[int, int, bytes]] | None = None

    @property
    def exhausted(self) -> bool:
        """Whether the window is used up: no more should be read for this direction."""
        return self.unacked_bytes >= self.limit

    @property
    def acknowledged(self) -> int:
        """The highest sequence number that the other side took over."""
        return self._pending[0][0] - 1 if self._pending else self.sequence

    def sent(self, size: int, kept: bytes = b"") -> int:
        """Account for a message; its sequence number. `kept` is given back by `unacknowledged` until it is."""
        if self._pending is None:
            self._pending = deque()
        self.sequence += 1
        self.unacked_bytes += size
        self._pending.append((self.sequence, size, kept))
        return self.sequence

    def unacknowledged(self) -> list[tuple[int, bytes]]:
        """(sequence, message) of what was kept and is not taken over yet."""
        return [(sequence, kept) for sequence, _, kept in self._pending or ()]

    def acked(self, sequence: int) -> None:
        """The other side took over everything up to `sequence`. Raises MalformedMessage if that was never sent."""
        if sequence > self.sequence:
            raise MalformedMessage(f"acknowledges message {sequence} of {self.sequence}")
        pending = self._pending
        while pending and pending[0][0] <= sequence:
            self.unacked_bytes -= pending.popleft()[1]


class ReceiveWindow:
    """Checks that messages come in order, each once."""

    __slots__ = ("sequence",)

    def __init__(self, sequence: int = 0) -> None:
        """`sequence` is the last that came before."""
        self.sequence = sequence

    def receive(self, sequence: int) -> bool:
        """Whether the message is new (a repeated one is to be dropped). Raises MalformedMessage on a gap."""
        if sequence <= self.sequence:
            return False
        if sequence != self.sequence + 1:
            raise MalformedMessage(f"message {sequence} came after {self.sequence}")
        self.sequence = sequence
        return True
