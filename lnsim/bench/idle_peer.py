"""What a connected peer that says nothing costs a frontend."""

import asyncio
import gc
import resource
import time
from typing import Any

from lnsim.bench.loop import new_runtime
from lnsim.bench.loop import run as run_loop
from lnsim.bench.peer_socket import PeerSocket, connect, gossip_wanted
from lnsim.bench.plan import Plan
from lnsim.bench.stand_in import FEATURES, StandIn, frontend
from lnsim.graph_generator import REGTEST

WARM_UP = 100  # pools and caches of the process are not a peer's
AT_ONCE = 50
SPARE_FILES = 200
SETTLE_S = 1.5  # the frontend's sweep looks at every connection once a second


def run(plan: Plan) -> dict[str, Any]:
    """KiB of resident memory of the frontend process for each session past its handshake, init and gossip filter.

    Sockets' buffers in the kernel are not in it: they are empty while nobody says anything.
    """
    return run_loop(_run(plan))


async def _run(plan: Plan) -> dict[str, Any]:
    peers = min(plan.idle_peers, _files() - SPARE_FILES)
    directory = plan.scratch("idle_peer")
    stand_in = StandIn(new_runtime(), directory, ())
    async with frontend(stand_in, directory) as process:
        sockets = await _open(process.address, stand_in, WARM_UP)
        before = process.rss_bytes
        sockets += await _open(process.address, stand_in, peers)
        after = process.rss_bytes
        for socket in sockets:
            socket.close()
    return {"kib": (after - before) / peers / 1024}


async def _open(address: str, stand_in: StandIn, count: int) -> list[PeerSocket]:
    sockets: list[PeerSocket] = []
    while len(sockets) < count:
        batch = min(AT_ONCE, count - len(sockets))
        sockets += await asyncio.gather(
            *(connect(address, stand_in.node_id, REGTEST, FEATURES.to_bytes()) for _ in range(batch))
        )
    for socket in sockets:
        socket.send(gossip_wanted(REGTEST, int(time.time())))
    gc.collect()
    await asyncio.sleep(SETTLE_S)
    return sockets


def _files() -> int:
    """How many files this process may open, once it has asked for all that it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
