"""`python tests/node/frontend/record_link.py FILE`: write down a conversation of this release's link.

Run it before the protocol's number changes: test_recorded_link.py then holds the later release to it.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import msgspec
from link_recording import BOBS_DOOR, DOWN, STEP, UP, FrameEnd, Peers, Recording, StillRuntime, until
from today import FLUSH_INTERVAL_S, LINK, backend_of_today, backend_steps, frontend_of_today

from node.link.messages import PROTOCOL_MAX, ToBackend, ToFrontend

TAP = "unix:tap.sock"
ORDER = (
    "alice_comes",
    "alice_gossips",
    "alice_opens",
    "dial_bob",
    "bob_answers",
    "drain",
    "undrain",
    "bob_leaves",
    "disconnect_alice",
)
QUIET_S = 4 * FLUSH_INTERVAL_S  # after a step, until nothing of it is on its way


class Tap:
    """Between frontend and backend."""

    def __init__(self, runtime: StillRuntime) -> None:
        self._runtime = runtime
        self.events: list[tuple[str, str]] = []
        self.near = FrameEnd(lambda frame: self._pass(UP, frame))
        self.far = FrameEnd(lambda frame: self._pass(DOWN, frame))

    def _pass(self, direction: str, frame: bytes) -> None:
        self.events.append((direction, frame.hex()))
        other = self.far if direction == UP else self.near
        other.transport.write(frame)

    async def open(self) -> None:
        await self._runtime.connect(LINK, lambda: self.far)
        await self._runtime.listen(TAP, lambda: self.near)


async def record() -> list[tuple[str, str]]:
    failures: list[BaseException] = []
    runtime = StillRuntime(lambda _, error: failures.append(error))
    backend, chain = await backend_of_today(runtime)
    tap = Tap(runtime)
    await tap.open()
    frontend = await frontend_of_today(runtime, TAP)
    peers = Peers(runtime, backend.node_id, frontend)
    await peers.start()
    steps = peers.steps | backend_steps(backend)
    doing = []
    for name in ORDER:
        tap.events.append((STEP, name))
        if name == "dial_bob":  # returns once bob has answered
            doing.append(asyncio.ensure_future(steps[name]()))
            await until(peers.bob.arrived.is_set, BOBS_DOOR)
        else:
            await steps[name]()
            await asyncio.sleep(QUIET_S)
    await asyncio.gather(*doing)
    events = list(tap.events)
    peers.stop()
    await frontend.stop()
    await backend.stop()
    chain.close()
    assert not failures, failures
    return events


def main(target: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    target = target.absolute()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        events = asyncio.run(record())
    tags = {
        direction: tuple(sorted(str(kind.__struct_config__.tag) for kind in get_args(union)))
        for direction, union in ((UP, ToBackend), (DOWN, ToFrontend))
    }
    source = f"tests/node/frontend/record_link.py, run at commit {commit.strip()}"
    made = Recording(source, PROTOCOL_MAX, tags, tuple(events))
    target.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
