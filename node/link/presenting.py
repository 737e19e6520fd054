"""Held sessions in messages that fit into frames."""

from collections.abc import Iterable, Iterator

from node.link.frames import MAX_FRAME
from node.link.messages import HeldSession, Present

MAX_PRESENT_BYTES = MAX_FRAME // 4  # of one message: the backend looks at other links in between
OVERHEAD_BYTES = 128  # of a session, its init and address apart


def presented(sessions: Iterable[HeldSession]) -> Iterator[Present]:
    """All of them, in one message or several; the last one says so, and there is always one."""
    part: list[HeldSession] = []
    size = 0
    for session in sessions:
        size += OVERHEAD_BYTES + len(session.init) + len(session.address.encode())
        if part and size > MAX_PRESENT_BYTES:
            yield Present(tuple(part))
            part, size = [], 0
        part.append(session)
    yield Present(tuple(part), last=True)
