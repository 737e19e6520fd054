"""A frontend sends the whole graph to one peer."""

import asyncio
import time
from typing import Any

from lnsim.bench.loop import new_runtime
from lnsim.bench.loop import run as run_loop
from lnsim.bench.peer_socket import PeerSocket, connect, gossip_wanted
from lnsim.bench.plan import Plan
from lnsim.bench.stand_in import FEATURES, StandIn, frontend
from lnsim.graph_generator import REGTEST, generate
from node.gossip.queries import matching
from node.peer.transport import HEADER_SIZE, MAC_SIZE
from node.wire.bolt7 import GossipTimestampFilter

SEED = 1
TIMEOUT_S = 120.0


def run(plan: Plan) -> dict[str, Any]:
    """Messages per second that arrive after a gossip_timestamp_filter for everything, over TCP and BOLT 8.

    Wall clock, from the filter's leaving to the last byte's arrival. The frontend is a real process. The peer only
    stores the bytes while the clock runs, so that decrypting does not compete for the second core, and decrypts
    them afterwards: every message is counted and compared with the graph.
    """
    return run_loop(_run(plan))


async def _run(plan: Plan) -> dict[str, Any]:
    directory = plan.scratch("graph_dump")
    stand_in = StandIn(new_runtime(), directory, generate(SEED, plan.channels, plan.nodes, signed=False))
    expected = list(matching(stand_in.graph, GossipTimestampFilter(REGTEST, 0, 0xFFFF_FFFF)))
    size = sum(map(len, expected)) + (HEADER_SIZE + MAC_SIZE) * len(expected)
    async with frontend(stand_in, directory) as process, asyncio.timeout(TIMEOUT_S):
        peer = await connect(process.address, stand_in.node_id, REGTEST, FEATURES.to_bytes())
        began_s = time.perf_counter()
        peer.send(gossip_wanted(REGTEST, 0))
        pieces = await _receive(peer, size)
        spent_s = time.perf_counter() - began_s
        peer.close()
    received = [message for piece in pieces for message in peer.noise.receive(piece)]
    assert received == expected, f"{len(received)} messages came, {len(expected)} are in the graph"
    return {"messages_per_s": len(received) / spent_s, "mb_per_s": size / spent_s / 1e6}


async def _receive(peer: PeerSocket, size: int) -> list[bytes]:
    pieces, got = [], 0
    while got < size:
        piece = await peer.reader.read(1 << 20)
        if not piece:
            raise ConnectionError(f"the frontend closed the connection after {got} of {size} bytes")
        pieces.append(piece)
        got += len(piece)
    return pieces
