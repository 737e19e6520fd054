"""All syncs of a storm: who is through, who never will be."""

import asyncio
from collections.abc import AsyncIterator, Callable

from lnsim.swarm.peer import LightPeer
from lnsim.swarm.sync import Sync

POLL_S = 0.1


async def finished(
    syncs: dict[LightPeer, Sync], now: Callable[[], float], timeout_s: float
) -> AsyncIterator[tuple[LightPeer, Sync]]:
    """Yield each sync once it is complete, has lost its connection, or is out of time. Empties `syncs`."""
    deadline_s = now() + timeout_s
    while syncs:
        await asyncio.sleep(POLL_S)
        now_s = now()
        for peer, sync in list(syncs.items()):
            sync.check(now_s)
            if sync.complete or peer.sync is not sync or now_s >= deadline_s:
                del syncs[peer]
                yield peer, sync
