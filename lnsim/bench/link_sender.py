"""The other process of the `link` benchmark: writes PEER frames until it is stopped."""

import asyncio
import sys
from typing import cast

from lnsim.bench.loop import new_runtime, run
from node.link import frames
from node.link.flow import SendWindow

MESSAGE_SIZE = 200
SESSION = 1
PER_TURN = 100  # frames written in one turn of the loop


class Sender(asyncio.Protocol):
    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.lost = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


async def send(address: str) -> None:
    """Until the other side is gone."""
    sender = await new_runtime().connect(address, Sender)
    assert isinstance(sender, Sender)
    print("{}", flush=True)  # noqa: T201 - says to our parent that we are ready
    window, raw = SendWindow(1 << 30), bytes(MESSAGE_SIZE)
    while not sender.lost:
        await sender.writable.wait()
        for _ in range(PER_TURN):
            sender.transport.write(frames.peer(SESSION, window.sent(len(raw)), raw))
        window.acked(window.sequence)
        await asyncio.sleep(0)


if __name__ == "__main__":
    run(send(sys.argv[1]))
