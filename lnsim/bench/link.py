"""The link: peer messages from one process to another over a Unix socket."""

import asyncio
import sys
from typing import Any, cast

from lnsim.bench import link_sender
from lnsim.bench.loop import new_runtime
from lnsim.bench.loop import run as run_loop
from lnsim.bench.plan import Plan
from lnsim.cluster_process import Child
from node.link import frames
from node.link.flow import ReceiveWindow

WARM_UP_S = 0.2


class Receiver(asyncio.Protocol):
    """Takes frames as both ends of a link do: cut, split, checked for their sequence."""

    def __init__(self) -> None:
        self.received = 0
        self.connected = asyncio.Event()
        self._reader = frames.FrameReader()
        self._window = ReceiveWindow()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        for kind, body in self._reader.receive(data):
            assert kind == frames.PEER
            _, sequence, raw = frames.split_peer(body)
            assert self._window.receive(sequence)
            assert len(raw) == link_sender.MESSAGE_SIZE
            self.received += 1

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def run(plan: Plan) -> dict[str, Any]:
    """200-byte peer messages per second, one way, each written as a frame of its own and checked on arrival.

    Wall clock; the sender is a process of its own and waits whenever its socket is full.
    """
    return run_loop(_run(plan))


async def _run(plan: Plan) -> dict[str, Any]:
    directory = plan.scratch("link")
    receiver = Receiver()
    runtime = new_runtime()
    listener = await runtime.listen(f"unix:{directory / 'link.sock'}", lambda: receiver)
    child = Child("sender", [sys.executable, "-m", link_sender.__name__, listener.address], directory)
    try:
        await child.start()
        await receiver.connected.wait()
        await asyncio.sleep(WARM_UP_S)
        began_s, before = runtime.monotonic(), receiver.received
        await asyncio.sleep(plan.seconds)
        rate = (receiver.received - before) / (runtime.monotonic() - began_s)
    finally:
        await child.stop()
        receiver.close()
        listener.close()
    return {"messages_per_s": rate}
