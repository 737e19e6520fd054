"""Sequence numbers, acknowledgements and credit of one direction of one session."""

from collections import deque

from node.errors import MalformedMessage


class SendWindow:
    """Numbers what is sent and knows how many bytes the other side has not taken over yet."""

    __slots__ = ("_pending", "limit", "sequence", "unacked_bytes")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sequence = 0
        self.unacked_bytes = 0
        self._pending: deque[tuple[int, int]] | None = None  # most sessions are idle: allocated on first use

    @property
    def exhausted(self) -> bool:
        """Whether the window is used up: no more should be read for this direction."""
        return self.unacked_bytes >= self.limit

    def sent(self, size: int) -> int:
        """Account for a message; its sequence number."""
        if self._pending is None:
            self._pending = deque()
        self.sequence += 1
        self.unacked_bytes += size
        self._pending.append((self.sequence, size))
        return self.sequence

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

    def __init__(self) -> None:
        self.sequence = 0

    def receive(self, sequence: int) -> bool:
        """Whether the message is new (a repeated one is to be dropped). Raises MalformedMessage on a gap."""
        if sequence <= self.sequence:
            return False
        if sequence != self.sequence + 1:
            raise MalformedMessage(f"message {sequence} came after {self.sequence}")
        self.sequence = sequence
        return True
